/* system.h: what the C tests need of the system beyond jdbfs, for test.h and fixture.h. */
#ifndef SYSTEM_H
#define SYSTEM_H

#if defined(_WIN32)
#include "system_windows.h"
#else
#include "system_posix.h"
#endif

#endif
