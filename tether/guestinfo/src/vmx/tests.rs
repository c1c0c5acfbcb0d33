//! Tests of the VMX reader and writer: line grammar, escapes, and what an edit leaves alone.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(line: &str, name: &str, value: &str) {
    let vmx = Vmx::parse(line).expect(line);
    assert_eq!(vmx.iter().collect::<Vec<_>>(), [(name, value)]);
    assert_eq!(vmx.to_string(), format!("{line}\n"), "printed back");
}

#[track_caller]
fn refuse(text: &[u8], line: usize, found: &str, expected: &str) {
    let error = Vmx::parse(text).expect_err("should be refused");
    assert_eq!(error.line, line, "{error}");
    assert!(error.found.contains(found), "{error}");
    assert!(error.expected.contains(expected), "{error}");
}

#[test]
fn every_form_of_a_line_is_read() {
    check("a = \"b\"", "a", "b");
    check("a=\"b\"", "a", "b");
    check("\t a\t=  b  # why", "a", "b");
    check("a = \"x # y\" # z", "a", "x # y");
    check("a =", "a", "");
    check("a = # nothing", "a", "");
    check("a = \"\"", "a", "");
    check("floppy0.present = FALSE", "floppy0.present", "FALSE");
    check("a = b=c", "a", "b=c");
}

#[test]
fn values_are_unescaped() {
    check("a = \"say |22hi|22|0A|7c|7C\"", "a", "say \"hi\"\n||");
    check("a = \"|C3|BC\"", "a", "ü");
    check("a = \"|-c|x|\"", "a", "|-c|x|");
    check("a = \"|0\"", "a", "|0");
    check("a = \"tab\tstays\"", "a", "tab\tstays");
}

#[test]
fn names_keep_their_pipes_in_both_spellings() {
    let id = "20ab".repeat(16);
    check(
        &format!("guestinfo.vice./sessions|{id}/tty = \"true\""),
        &format!("guestinfo.vice./sessions|{id}/tty"),
        "true",
    );
    check(
        &format!("guestinfo.vice./sessions|7C{id}/tty = \"true\""),
        &format!("guestinfo.vice./sessions|{id}/tty"),
        "true",
    );
    check("mounts|2023-data/dest = \"/d\"", "mounts|2023-data/dest", "/d");
    check("a~@non-persistent = \"1\"", "a~@non-persistent", "1");
}

#[test]
fn errors_name_the_line_what_stands_there_and_what_should() {
    refuse(b"a = \"1\"\n\nnonsense", 3, "nonsense", "name = \"value\"");
    refuse(b"= \"1\"", 1, "without a name", "name =");
    refuse(b"a b = 1", 1, "a b = 1", "name =");
    refuse(b"# ok\na = \"1", 2, "without a closing quote", "|0A");
    refuse(b"a = \"1\" 2", 1, "\" 2\" after the value of \"a\"", "comment");
    refuse(b"a = two words", 1, "words", "double quotes");
    refuse(b"x = 1\na = \"caf\xE9\"", 2, "0xE9", "UTF-8");
    refuse(b"a = \"echo|ech\"", 1, "\"a\"", "|7C");
    refuse(b"a = 1\n# between\nA = 2", 3, "\"A\" a second time", "line 1 has it");
    let error = Vmx::parse("a = 1\na = 1").expect_err("twice");
    assert!(
        error.at("vm.vmx").starts_with("vm.vmx:2: \"a\" a second time; expected each name once")
    );
}

const FILE: &str = "#!/usr/bin/vmware\n.encoding = \"UTF-8\"\n\n  # disks\nscsi0.virtualDev = \"pvscsi\" # fast\nmemsize=\"64\"\n";

#[test]
fn comments_order_and_layout_survive_an_edit() {
    let mut vmx = Vmx::parse(FILE).unwrap();
    assert_eq!(vmx.to_string(), FILE);
    assert_eq!(vmx.get("SCSI0.VIRTUALDEV"), Some("pvscsi"));
    assert_eq!(vmx.line_of("scsi0.virtualdev"), Some(5));
    vmx.set("scsi0.VirtualDEV", "lsilogic").unwrap();
    vmx.set("memsize", "64").unwrap();
    vmx.set("new", "a\nb").unwrap();
    assert_eq!(
        vmx.to_string(),
        FILE.replace("pvscsi", "lsilogic") + "new = \"a|0Ab\"\n",
        "an unchanged value leaves its line alone"
    );
    assert_eq!(vmx.remove("SCSI0.virtualDev").as_deref(), Some("lsilogic"));
    assert_eq!(vmx.remove("scsi0.virtualDev"), None);
    assert_eq!((vmx.line_of("memsize"), vmx.line_of("new")), (Some(5), Some(6)));
    assert_eq!(vmx.get("new"), Some("a\nb"));
}

#[test]
fn line_ends_of_windows_are_kept() {
    let mut vmx = Vmx::parse("\u{FEFF}a = \"1\"\r\n# c\r\nb = 2\r\n").unwrap();
    assert_eq!(vmx.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
    vmx.set("a", "3").unwrap();
    vmx.set("c", "4").unwrap();
    assert_eq!(vmx.to_string(), "a = \"3\"\r\n# c\r\nb = 2\r\nc = \"4\"\r\n");
}

#[test]
fn names_that_would_not_read_back_are_refused() {
    for bad in ["a b", "a=b", "#a", "a\"", "a\n", "a\0", "a\t"] {
        let error = Vmx::new().set(bad, "").expect_err(bad);
        assert!(error.to_string().contains("leave them out"), "{error}");
    }
    assert_eq!(Vmx::new().set("", "x"), Err(VmxNameError::Empty));
}

#[test]
fn an_empty_file_has_no_lines() {
    assert_eq!(Vmx::parse("").unwrap().to_string(), "");
    assert_eq!(Vmx::parse("\n").unwrap().to_string(), "\n");
    assert_eq!(Vmx::parse("\n\n").unwrap().to_string(), "\n\n");
    assert_eq!(Vmx::parse("\u{FEFF}\u{FEFF}a=1").unwrap().get("a"), Some("1"));
}

proptest! {
    #[test]
    fn what_is_set_reads_back(pairs in prop::collection::vec(("[^ \t\r\n\0=#\"\u{FEFF}]{1,20}", any::<String>()), 0..12)) {
        let mut vmx = Vmx::new();
        for (name, value) in &pairs {
            vmx.set(name.clone(), value.clone()).unwrap();
        }
        let again = Vmx::parse(vmx.to_string()).unwrap();
        prop_assert!(again.iter().eq(vmx.iter()));
        for (name, _) in &pairs {
            prop_assert_eq!(again.get(name), vmx.get(name));
            prop_assert_eq!(again.line_of(name), vmx.line_of(name));
        }
    }

    #[test]
    fn pipes_in_names_read_back(name in "[|7Cc0-9/~@.]{1,24}") {
        let mut vmx = Vmx::new();
        vmx.set(name.clone(), "v").unwrap();
        let again = Vmx::parse(vmx.to_string()).unwrap();
        prop_assert_eq!(again.iter().collect::<Vec<_>>(), [(name.as_str(), "v")]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(vmx) = Vmx::parse(&bytes) {
            let printed = vmx.to_string();
            let again = Vmx::parse(&printed).unwrap();
            prop_assert!(again.iter().eq(vmx.iter()));
            prop_assert_eq!(again.to_string(), printed);
        }
    }
}
