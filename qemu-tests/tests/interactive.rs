//! A person at a terminal: line editing, an editor, window sizes, detaching and coming back, others who watch.

use qemu_tests::Lab;

const BACKSPACE: &str = "\x7f";
const UP: &str = "\x1b[A";
const LEFT: &str = "\x1b[D";
const DETACH: &str = "\x10\x11";

#[test]
fn a_shell_edits_its_line_and_remembers() {
    let lab = Lab::new();
    let mut shell = lab.run_in_terminal(["busybox"]);
    shell.expect("# ");
    // What is typed comes back as an echo, so each answer is something that was not typed.
    shell.types(&format!("ex{BACKSPACE}cho $((40+2))\r")).expect("42\r\n").expect("# ");
    shell.types(UP).expect("echo $((40+2))");
    shell.types(&format!("{LEFT}{LEFT}{BACKSPACE}5")).types("\r").expect("45\r\n").expect("# ");
    // The keys are the program's only once it runs: what comes before is the shell's editor's to read.
    shell.types("sh -c 'echo go; sleep 1000'\r").expect("\r\ngo\r\n").types("\x03").expect("# ");
    shell.types("echo $?\r").expect("130\r\n").expect("# ");
    shell.types("exit 7\r");
    shell.finish().code(7);
}

#[test]
fn an_editor_and_the_window_size_work() {
    let lab = Lab::new();
    let mut shell = lab.run_in_terminal(["busybox"]);
    shell.expect("# ").types("stty size\r").expect("24 80\r\n").expect("# ");
    // The shell draws its line again when it is told of the change, which it asks for a moment after
    // its prompt; it echoes nothing before.
    shell.types("stty").expect("stty").resize(50, 132).expect("\x1b[J");
    shell.types(" size\r").expect("50 132\r\n").expect("# ");
    // The last line of a screen this high is drawn only if the editor knows its size.
    shell.types("vi note\r").expect("\x1b[50;1H").expect("note");
    shell.types("ifirst line\rsecond\x1b").expect("second");
    shell.types(":wq\r").expect("# ");
    shell.types("cat note | tr a-z A-Z\r").expect("FIRST LINE\r\nSECOND\r\n").expect("# ");
    shell.types("exit\r");
    shell.finish().code(0);
}

#[test]
fn detaching_leaves_it_running_and_attaching_finds_it_again() {
    let lab = Lab::new();
    let mut first = lab.run_in_terminal(["--name", "kept", "busybox"]);
    first.expect("# ").types("x=$((6*7))\r").expect("# ");
    first.types(DETACH);
    first.finish().code(0);
    lab.serialmux(["ps"]).finish().code(0).shows("kept").shows("running");

    let mut again = lab.in_terminal(&lab.command("serialmux", &["attach", "kept"]));
    again.types("echo still $x\r").expect("still 42\r\n");
    // Half of the keys is for the process: Ctrl-P brings back its last line, Ctrl-U clears that.
    again.expect("# ").types("\x10x").expect("echo still $x").types("\x15exit 9\r");
    again.finish().code(9);
}

#[test]
fn all_who_are_attached_see_the_same_and_each_may_type() {
    let lab = Lab::new();
    let mut owner = lab.run_in_terminal(["--name", "shared", "busybox"]);
    owner.expect("# ");
    let keys = lab.command("serialmux", &["attach", "--detach-keys", "ctrl-x,x", "shared"]);
    let mut guest = lab.in_terminal(&keys);
    guest.types("echo from guest $((1+1))\r").expect("from guest 2\r\n");
    owner.expect("from guest 2\r\n").expect("# ");
    let watcher = lab.serialmux(["attach", "--no-stdin", "shared"]);
    // Attached once its terminal size is asked for; the next line says that it is.
    let mut again = String::new();
    for n in 0.. {
        owner.types(&format!("echo line $(({n}+100))\r")).expect(&format!("line {}\r\n", n + 100));
        again = watcher.so_far();
        if again.contains("line 1") {
            break;
        }
    }
    assert!(again.contains("line 1"), "{again}");
    guest.types("\x18x");
    guest.finish().code(0);
    owner.expect("# ").types("exit 5\r");
    owner.finish().code(5);
    watcher.end().code(5);
}

#[test]
fn the_size_of_a_terminal_can_be_set_from_outside() {
    let lab = Lab::new();
    let mut shell = lab.run_in_terminal(["--name", "sized", "busybox"]);
    shell.expect("# ").types("stty").expect("stty");
    lab.serialmux(["resize", "sized", "33", "44"]).finish().code(0);
    shell.expect("\x1b[J").types(" size\r").expect("33 44\r\n").expect("# ").types("exit\r");
    shell.finish().code(0);
}

#[test]
fn a_program_that_reads_no_keys_is_still_seen() {
    let lab = Lab::new();
    let ticks = "stty raw -echo; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done";
    let mut shell = lab.run_in_terminal(["--name", "deaf", "busybox", "sh", "-c", ticks]);
    // More than its terminal holds: the rest of it waits in the agent.
    shell.expect("tick 10\n").types(&"k".repeat(20_000)).expect("tick 100\n");
    lab.serialmux(["kill", "deaf"]).finish().code(0);
    shell.finish().code(137);
}
