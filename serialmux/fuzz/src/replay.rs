//! Fuzz targets as tests: what one of them once found worth keeping is given to it again.
//!
//! A target is a program of its own that includes a fuzzer. Here it is a module, whose `libfuzzer_sys` is the test's
//! own crate, so that its macro makes a function.

/// What `libfuzzer_sys` makes a program of.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        pub(crate) fn run($data: &[u8]) $body
    };
    (|$data:ident: $kind:ty| $body:block) => {
        pub(crate) fn run(bytes: &[u8]) {
            let bytes = arbitrary::Unstructured::new(bytes);
            if let Ok($data) = <$kind as arbitrary::Arbitrary<'_>>::arbitrary_take_rest(bytes) $body
        }
    };
}

/// A test for each target of a directory; it fails when one is left out.
macro_rules! replay {
    ($fuzz:literal, $targets:literal: $($name:ident)*) => {
        #[path = $targets]
        #[allow(unused_attributes, unused_imports, unreachable_pub, reason = "each is a program of its own")]
        mod fuzz_targets {
            $(pub(super) mod $name;)*
        }

        const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/", $fuzz);

        $(#[test]
        fn $name() {
            $crate::replay::each(FUZZ, stringify!($name), fuzz_targets::$name::run);
        })*

        #[test]
        fn no_target_is_left_out() {
            assert_eq!($crate::replay::targets(FUZZ), [$(stringify!($name)),*]);
        }
    };
}

use std::fs;
use std::path::Path;

pub(crate) fn each(fuzz: &str, name: &str, run: fn(&[u8])) {
    let mut n_inputs = 0;
    for input in fs::read_dir(Path::new(fuzz).join("corpus").join(name)).expect("a corpus") {
        run(&fs::read(input.expect("a file").path()).expect("an input"));
        n_inputs += 1;
    }
    assert!(n_inputs > 0, "{name} has an empty corpus");
}

pub(crate) fn targets(fuzz: &str) -> Vec<String> {
    let files = fs::read_dir(Path::new(fuzz).join("fuzz_targets")).expect("targets");
    let mut names: Vec<_> = files
        .filter_map(|file| {
            Some(file.expect("a file").file_name().to_str()?.strip_suffix(".rs")?.to_owned())
        })
        .collect();
    names.sort();
    names
}
