//! Every kernel of the benches runs once and sees what it should, so that none of them rots.

#[test]
fn every_kernel_runs_twice_and_sees_all_its_items() {
    for entry in quiver_bench_kernels::all() {
        let name = entry.full_name();
        let mut kernel = entry
            .setup()
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
        for _ in 0..2 {
            kernel
                .prepare()
                .unwrap_or_else(|fault| panic!("{name}: {fault}"));
            let seen = kernel
                .run()
                .unwrap_or_else(|fault| panic!("{name}: {fault}"));
            assert_eq!(seen, entry.items, "{name}");
        }
    }
}

#[test]
fn kernels_have_names_of_their_own() {
    let mut names: Vec<String> = quiver_bench_kernels::all()
        .iter()
        .map(quiver_bench_kernels::Entry::full_name)
        .collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}
