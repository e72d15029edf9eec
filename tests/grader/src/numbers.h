#pragma once

int twice(int x);
int half(int x);
