#include "numbers.h"

#include "attacks.h"

int twice(int x) {
  //@ gap 01 twice
  int sum = x;
  sum += x;
  return sum;
  //@ end
}

int half(int x) {
  //@ gap 01 half
  int rest = x;
  rest /= 2;
  return rest;
  //@ end
}
