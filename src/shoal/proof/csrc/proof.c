// The library of the proof system's hot loops: one translation unit. Each file says what it holds.
#include "field.h"
#include "lanes.h"
#include "threads.h"
#include "vector.c"
#include "ntt.c"
#include "columns.c"
#include "rows.c"
