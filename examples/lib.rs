//! Examples of how to use `vdisk-format` and `guest-fuzz`. Each is one program of under 30 lines, and runs as
//! `cargo run -p vdisk-examples --example NAME -- FILE`:
//!
//! * `make_image` writes a small qcow2 image: a FILE for the next two, where there is no qemu-img.
//! * `read_header` prints what a header says, and what is wrong with it.
//! * `edit_header` changes a header through a plan, and takes the change back.
//! * `make_qed` writes a small QED image: a FILE for the next three. No qemu-img makes one like it.
//! * `check_qed` prints what is wrong with a QED image.
//! * `map_qed` prints where the data of a QED image's virtual disk are.
//! * `scrub_qed` copies a QED image without what its guest stored.
//! * `fuzz_ports` fuzzes a machine with planted faults, from a seed, and prints what it finds.
//! * `replay_program` executes a list of operations on a machine of QEMU, and prints what they read.
//! * `list_ports` prints where a machine of QEMU can be reached.
