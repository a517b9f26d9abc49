// SPDX-License-Identifier: GPL-2.0-only
/* The one place where the trace events of events.h become code and data. */
#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "events.h"
