/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What bindgen reads for sys/bindings.rs: the headers that rust/bindings/bindings_helper.h of the
 * kernel does not include.
 */
#ifndef VHMM_BINDINGS_HELPER_H
#define VHMM_BINDINGS_HELPER_H

#include <linux/dma-mapping.h>
#include <linux/eventfd.h>
#include <linux/hmm.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/scatterlist.h>
#include <linux/suspend.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include <linux/page-flags.h>

#include "events.h"
#include "helpers.h"
#include "placement.h"
#include "process.h"
#include "tracking.h"
#include "walkers.h"

/* What the low bits of a mapping say, for AnonVma. */
static const unsigned long VHMM_MAPPING_ANON = FOLIO_MAPPING_ANON;

#endif
