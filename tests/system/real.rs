//! The whole loop on real parts: libvirt, QEMU under software emulation, a guest that boots. Runs inside
//! `tests/harness/realm`, which gives it a libvirtd and a tiny guest of its own.
