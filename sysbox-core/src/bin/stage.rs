//! The stage program on its own, for embedders that are not their own stage.

fn main() {
    std::process::exit(sysbox_core::stage::main());
}
