//! The kernel, and all `unsafe` of the package: one ring per shard, its files, sockets and clock.
//!
//! A [`Ring`] owns every buffer it has lent to the kernel until the kernel gives it back; nothing else may
//! hold a pointer into one. Always: an operation is submitted at most once, completes at most once (multishot
//! ones until they say that they end), and what it owned comes back with its completion. Left out: what bytes
//! mean. This room knows descriptors, offsets and instants, and nobody in the package but `ids`.
//!
//! | file | holds |
//! |---|---|
//! | `ring` | submission and completion, on one io_uring |
//! | `operation` | what is in flight, and the buffers it owns |
//! | `buffer` | memory aligned for O_DIRECT |
//! | `disk` | the data directory: lock, segments made and read |
//! | `mapping` | files of a stopped member, to look at |
//! | `sockets` | listening and connecting |
//! | `clock` | this boot's monotonic time |
//! | `affinity` | which CPUs a thread runs on |
//! | `memory` | how the allocator takes memory from the kernel |
//! | `wake` | how another thread rings |

#![allow(unsafe_code)]

mod affinity;
mod buffer;
mod clock;
mod disk;
mod mapping;
mod memory;
mod operation;
mod ring;
mod sockets;
mod wake;

pub use affinity::{CpuClaim, allowed_cpus, claim_cpu, run_on, take_slices_of};
pub use buffer::AlignedBuffer;
pub use clock::{now, random_seed};
pub use disk::{DataDirectory, DiskError, shrink_gently};
pub use mapping::MappedFile;
pub use memory::take_memory_in_large_steps;
pub use ring::{Event, Ring, RingError, Tag};
pub use sockets::{connect_socket, listen, local_address, raise_descriptor_limit};
pub use wake::Wake;
