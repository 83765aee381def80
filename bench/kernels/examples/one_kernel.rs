//! Runs one kernel a given number of times: what `cargo xtask instructions` counts the
//! instructions of. `one_kernel --list` prints the names.

use std::process::ExitCode;

use quiver_bench_kernels::{Fault, Kernel, all};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [list] if list == "--list" => {
            for entry in all() {
                println!("{}", entry.full_name());
            }
            ExitCode::SUCCESS
        }
        [name, runs] => match run(name, runs) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("one_kernel: {name}: {fault}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: one_kernel GROUP/NAME RUNS | one_kernel --list");
            ExitCode::from(64)
        }
    }
}

fn run(name: &str, runs: &str) -> Result<(), Fault> {
    let runs: u64 = runs.parse()?;
    let entry = all()
        .into_iter()
        .find(|entry| entry.full_name() == name)
        .ok_or("there is no such kernel; --list names them")?;
    let mut kernel = entry.setup()?;
    // What only the first run does, such as making a file, is not counted.
    kernel.prepare()?;
    kernel.run()?;
    for _ in 0..runs {
        kernel.prepare()?;
        let seen = quiver_measured_run(&mut *kernel)?;
        if seen != entry.items {
            return Err(format!("a run saw {seen} items instead of {}", entry.items).into());
        }
    }
    Ok(())
}

/// Callgrind counts what happens below this function and nothing else: its name must stay in the
/// program, hence neither inlined nor mangled.
#[inline(never)]
#[expect(
    unsafe_code,
    reason = "an unmangled name is what makes the function findable"
)]
#[unsafe(no_mangle)]
fn quiver_measured_run(kernel: &mut dyn Kernel) -> Result<u64, Fault> {
    std::hint::black_box(kernel.run())
}
