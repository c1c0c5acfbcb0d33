//! Tests of the sources and of their order.

use super::*;

#[test]
fn fw_cfg_is_read_where_linux_shows_it() {
    let sys = tempfile::tempdir().unwrap();
    let source = FwCfg::new(sys.path());
    assert!(source.read().unwrap().is_none(), "not QEMU");
    let item = sys.path().join("firmware/qemu_fw_cfg/by_name/opt/containervm.vmx");
    std::fs::create_dir_all(&item).unwrap();
    std::fs::write(item.join("raw"), "guestinfo.vice./common/id = \"x\"\n\0").unwrap();
    assert_eq!(
        source.read().unwrap(),
        Some(vec![("guestinfo.vice./common/id".to_owned(), "x".to_owned())])
    );
    std::fs::write(item.join("raw"), "a = 1\nnonsense\n").unwrap();
    let error = source.read().unwrap_err().to_string();
    assert!(error.contains("containervm.vmx/raw:2: \"nonsense\"; expected"), "{error}");
    std::fs::write(item.join("raw"), "# nothing\n").unwrap();
    assert!(source.read().unwrap().is_none(), "empty is not an answer");
}

#[test]
fn the_first_that_answers_is_named_and_so_are_those_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        VmxFile::new(path)
    };
    let absent = VmxFile::new(dir.path().join("absent"));
    let broken = at("broken", "?");
    let good = at("good", "a = \"1\"");
    let later = at("later", "a = \"2\"");
    let answer = first_answering(&[&absent, &broken, &good, &later]).unwrap();
    assert_eq!(answer.source, good.name());
    assert_eq!(answer.pairs, [("a".to_owned(), "1".to_owned())]);
    let passed_over: Vec<_> = answer.passed_over.iter().map(ToString::to_string).collect();
    assert!(passed_over[0].ends_with("absent: not there"), "{passed_over:?}");
    assert!(passed_over[1].contains("broken:1: \"?\"; expected"), "{passed_over:?}");
    let error = first_answering(&[&absent, &broken]).unwrap_err().to_string();
    assert!(error.contains("absent: not there; file") && error.contains("broken:1:"), "{error}");
}

#[test]
fn a_config_beyond_all_measure_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    std::fs::write(&path, b"0123456789").unwrap();
    assert_eq!(read_bounded(&path, 10).unwrap().unwrap().len(), 10);
    assert!(matches!(read_bounded(&path, 9), Err(SourceError::TooLarge { limit: 9, .. })));
    assert!(matches!(read_bounded(dir.path(), 9), Err(SourceError::Io { .. })), "a directory");
}
