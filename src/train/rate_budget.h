// How far a decaying rate can go.
#pragma once

namespace focus {

// The sum of the rates of the first so many epochs, lr (1 + decay + decay² + …). For ever:
// lr / (1 - decay), if the decay is less than 1.
double sum_of_rates(double lr, double decay, double epochs);

}  // namespace focus
