// SPDX-License-Identifier: GPL-2.0-only

//! Keeps a module loaded.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use crate::sys::bindings;
use kernel::ThisModule;

/// A reference to a module. While one exists, the module cannot be unloaded.
pub(crate) struct ModuleRef(&'static ThisModule);

impl ModuleRef {
    /// Takes a reference; `None` if the module is being unloaded.
    pub(crate) fn try_new(module: &'static ThisModule) -> Option<Self> {
        // SAFETY: The module is loaded, since its code asks.
        unsafe { bindings::try_module_get(module.as_ptr()) }.then(|| Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: `try_new` took the reference.
        unsafe { bindings::module_put(self.0.as_ptr()) };
    }
}
