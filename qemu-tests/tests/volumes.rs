//! Volumes: disks beside the root's that outlive the VMs they are used in.

use qemu_tests::Lab;

/// A line per name in a directory, in an order that does not depend on anything.
const LIST: &str = "ls -A";

#[test]
fn vic_131_a_new_volume_gets_what_the_image_has_and_shows_it_elsewhere() {
    let lab = Lab::new();
    let script = "stat -c %a:%u /etc; grep -c root /etc/passwd; cat /etc/hostname; \
                  echo mine >/etc/mine; chmod 751 /etc";
    let first = lab.run(["-h", "box", "-v", "conf:/etc", "busybox", "sh", "-c", script]);
    first.code(0).prints("755:0\n1\nbox\n");
    let script = format!(
        "cat /mnt/mine; grep -c root /mnt/passwd; stat -c %a /mnt; {LIST} /mnt | grep -c lost"
    );
    let second = lab.run(["-v", "conf:/mnt", "busybox", "sh", "-c", &script]);
    second.code(1).prints("mine\n1\n751\n0\n");
}

#[test]
fn vic_132_a_used_volume_is_not_overwritten_and_what_agents_manage_is_seen_on_it() {
    let lab = Lab::new();
    let script = "echo changed >/etc/passwd; rm /etc/group";
    lab.run(["-v", "conf:/etc", "busybox", "sh", "-c", script]).code(0);
    let script = "cat /etc/passwd /etc/hostname; test -e /etc/group || echo gone; \
                  grep -c localhost /etc/hosts";
    let again = lab.run(["-h", "box", "-v", "conf:/etc", "busybox", "sh", "-c", script]);
    again.code(0).prints("changed\nbox\ngone\n2\n");
}

#[test]
fn a_volume_may_be_read_only_fresh_nested_or_without_a_name() {
    let lab = Lab::new();
    let script =
        format!("{LIST} /a /b/c; echo x >/a/x; echo y >/b/c/y; ls /b; mount | grep -c ext4");
    let options = ["-v", "a:/a", "-v", "b:/b", "-v", "c:/b/c", "-v", "/own"];
    let mut all = options.to_vec();
    all.extend(["busybox", "sh", "-c", &script]);
    let all: [&str; 12] = all.try_into().expect("twelve");
    lab.run(all).code(0).prints("/a:\n\n/b/c:\nc\n5\n");
    let script = "cat /a/x /c/y; touch /a/z || echo refused; touch /c/z && echo taken; \
                  mkdir /tmp/t && mount -o remount,rw /a 2>/dev/null; ls /b";
    let again =
        lab.run(["-v", "a:/a:ro", "-v", "c:/c", "-v", "b:/b", "busybox", "sh", "-c", script]);
    again.code(0).shows("x\ny\nrefused\ntaken\nc\n");
    let listed = lab.containervm(["volume", "ls"]).finish();
    listed.code(0).shows("a  ").shows("b  ").shows("c  ");
    assert_eq!(listed.out().lines().count(), 4, "{}", listed.out());
    lab.containervm(["volume", "rm", "a"]).finish().code(0).prints("a\n");
    lab.run(["-v", "/srv:/srv", "busybox", "true"]).code(125);
}

#[test]
fn vic_133_a_volume_that_a_running_container_writes_to_is_in_use() {
    let lab = Lab::new();
    let script = "echo up; read line";
    let mut first =
        lab.begin(["-i", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", script]);
    first.expect("up");
    let file = lab.file("copied", "from outside\n").display().to_string();
    lab.serialmux(["cp", &file, "one:/data/"]).finish().code(0);
    let second = lab.run(["-v", "data:/data", "busybox", "true"]);
    second.code(125).complains(&["volumes/data/volume.img is in use by one"]);
    let removed = lab.containervm(["volume", "rm", "data"]).finish();
    removed.complains(&["data", "belongs to one"]);
    first.write("\n");
    first.finish().code(0);
    let read = lab.run(["-v", "data:/data", "busybox", "cat", "/data/copied"]);
    read.code(0).prints("from outside\n");
    lab.containervm(["volume", "rm", "data"]).finish().code(0);
}
