// What a student's code could try. The grader refuses the names of most of it in a gap; here a gap
// gets at it by a call, so that what stands behind that refusal is tried, too.
#pragma once

int attack_calls();    // system calls that would touch or read what is not the program's own
int attack_parent();   // ends the process above, or takes its limits away
int attack_verdict();  // writes what a passing test would write, everywhere, and ends
int attack_exec();     // becomes the test program anew, with other arguments
int attack_threads();  // thousands of them, without memory for a stack
int attack_memory();   // more than the limit, in every kind of memory
int attack_output();   // without an end
int attack_text();     // counts that no int holds, many blanks, escapes
