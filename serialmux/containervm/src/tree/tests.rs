//! Tests of the tree that an image becomes.

use super::*;

fn put(tree: &mut Tree, path: &str, kind: Kind) -> Result<NodeId, TreeError> {
    tree.insert(path.as_bytes(), Attributes::root_owned(0o644), kind)
}

fn has(tree: &Tree, path: &str) -> bool {
    tree.find(path.as_bytes()).is_some()
}

#[test]
fn names_above_the_root_are_refused_and_absolute_names_are_relative_to_it() {
    let mut tree = Tree::new();
    assert_eq!(put(&mut tree, "../etc/passwd", Kind::Fifo).unwrap_err(), TreeError::Escapes);
    assert_eq!(put(&mut tree, "a/../../x", Kind::Fifo).unwrap_err(), TreeError::Escapes);
    put(&mut tree, "/etc/./passwd", Kind::file(*b"x")).unwrap();
    assert!(has(&tree, "etc/passwd"));
}

#[test]
fn links_among_the_parents_are_followed_inside_the_tree() {
    let mut tree = Tree::new();
    put(&mut tree, "usr/lib", Kind::directory()).unwrap();
    put(&mut tree, "lib", Kind::Symlink(b"../../usr/lib".to_vec())).unwrap();
    put(&mut tree, "lib/libc.so", Kind::file(*b"elf")).unwrap();
    assert!(has(&tree, "usr/lib/libc.so"));
    put(&mut tree, "a", Kind::Symlink(b"b".to_vec())).unwrap();
    put(&mut tree, "b", Kind::Symlink(b"a".to_vec())).unwrap();
    assert_eq!(put(&mut tree, "a/x", Kind::Fifo).unwrap_err(), TreeError::LinkLoop);
}

#[test]
fn nothing_lies_deeper_than_a_path_can_reach() {
    let mut tree = Tree::new();
    let deep = "d/".repeat(2000);
    put(&mut tree, &deep, Kind::directory()).unwrap();
    put(&mut tree, "l", Kind::Symlink(deep.into_bytes())).unwrap();
    put(&mut tree, &format!("l/{}", "x".repeat(94)), Kind::Fifo).unwrap();
    for path in ["x".repeat(95), "y/".repeat(60)] {
        let error = put(&mut tree, &format!("l/{path}"), Kind::Fifo).unwrap_err();
        assert!(matches!(error, TreeError::PathTooLong(_)), "{path}: {error}");
        assert!(tree.n_nodes() < 2100);
    }
    assert_eq!(
        tree.link(&[b"l/", [b'x'; 95].as_slice()].concat(), b"l"),
        Err(TreeError::PathTooLong(4096))
    );
}

#[test]
fn a_directory_replaces_a_link_but_keeps_a_directory() {
    let mut tree = Tree::new();
    put(&mut tree, "d/x", Kind::Fifo).unwrap();
    put(&mut tree, "d", Kind::directory()).unwrap();
    assert!(has(&tree, "d/x"));
    put(&mut tree, "l", Kind::Symlink(b"d".to_vec())).unwrap();
    put(&mut tree, "l", Kind::directory()).unwrap();
    assert!(!has(&tree, "l/x"));
}

#[test]
fn whiteouts_remove_only_what_earlier_layers_brought() {
    let mut tree = Tree::new();
    for path in ["d/old", "d/sub/old", "gone/deep/x"] {
        put(&mut tree, path, Kind::Fifo).unwrap();
    }
    tree.start_layer();
    put(&mut tree, "d/new", Kind::Fifo).unwrap();
    put(&mut tree, "d/sub/new", Kind::Fifo).unwrap();
    tree.make_opaque(b"d").unwrap();
    tree.white_out(b"gone").unwrap();
    tree.white_out(b"d/new").unwrap();
    assert!(!has(&tree, "d/old") && !has(&tree, "d/sub/old") && !has(&tree, "gone"));
    assert!(has(&tree, "d/new") && has(&tree, "d/sub/new"));
}

#[test]
fn hard_links_share_a_node_and_never_name_directories() {
    let mut tree = Tree::new();
    let id = put(&mut tree, "a", Kind::file(*b"1")).unwrap();
    tree.link(b"dir/b", b"/a").unwrap();
    assert_eq!(tree.find(b"dir/b"), Some(id));
    assert_eq!(tree.link(b"c", b"dir"), Err(TreeError::LinkToDirectory("dir".into())));
    assert_eq!(tree.link(b"c", b"nowhere"), Err(TreeError::NoLinkTarget("nowhere".into())));
}

#[test]
fn a_layer_that_empties_a_directory_for_each_of_its_files_takes_no_time() {
    let mut tree = Tree::new();
    put(&mut tree, "d/old", Kind::Fifo).unwrap();
    put(&mut tree, "d/e/old", Kind::Fifo).unwrap();
    tree.start_layer();
    for n in 0..20_000 {
        put(&mut tree, &format!("d/e/{n}"), Kind::Fifo).unwrap();
        tree.make_opaque(b"d/e").unwrap();
        tree.make_opaque(b"").unwrap();
        tree.white_out(b"d").unwrap();
    }
    assert!(has(&tree, "d/e/0") && has(&tree, "d/e/19999"));
    assert!(!has(&tree, "d/old") && !has(&tree, "d/e/old"));
    tree.start_layer();
    tree.make_opaque(b"d").unwrap();
    assert!(!has(&tree, "d/e"));
}
