//! The test cases of VIC's own suite, by their numbers in our list, and what stands for each of them here.
//!
//! A case is proven by a test of the name that stands there, or proven but for something; what belongs to vSphere,
//! to the Docker API or to things that are not there yet has a reason instead.
//! Who writes a test for a case enters it here. The test below asserts that each test that is named exists.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::{Checkout, record};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What stands for a case.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Tests of these names.
    Tests(&'static [&'static str]),
    /// A test of this name, but for this.
    Partly(&'static str, &'static str),
    /// Nothing, and why.
    No(&'static str),
}
use Place::{No, Partly, Tests};

const API: &str = "the Docker API's, which serialmux does not serve yet";
const NEIGHBORS: &str =
    "VMs of one host do not see each other: each has a network of its own, from QEMU";
const FIREWALL: &str = "trust levels set no firewall in a VM yet";
const VSPHERE: &str = "vSphere's: no such operation on QEMU";
const IMAGES: &str = "an application image, which would have to be pulled from a registry";

const CASES: [(u16, Place); 134] = [
    // Attach.
    (1, Tests(&["a_vm_in_the_background_is_followed_attached_to_and_remembered"])),
    (
        2,
        Partly(
            "a_vm_in_the_background_is_followed_attached_to_and_remembered",
            "what was never started is waited for or, if serialmux has not heard of it, no container",
        ),
    ),
    (3, Tests(&["a_vm_in_the_background_is_followed_attached_to_and_remembered"])),
    (4, Tests(&["vic_4_6_one_container_is_started_five_times_and_says_the_same"])),
    (6, Tests(&["vic_4_6_one_container_is_started_five_times_and_says_the_same"])),
    (7, Tests(&["a_printed_vmx_can_be_edited_and_started"])),
    (8, Tests(&["detaching_leaves_it_running_and_attaching_finds_it_again"])),
    (9, Tests(&["a_vm_in_the_background_is_followed_attached_to_and_remembered"])),
    (11, Tests(&["vic_11_what_the_kernel_has_said_comes_out_whole_in_all_forms"])),
    (12, No(IMAGES)),
    (13, Tests(&["vic_13_what_ran_in_a_terminal_is_started_in_the_background"])),
    (14, Tests(&["vic_14_51_a_top_in_a_terminal_is_logged_and_stopped"])),
    (16, No(IMAGES)),
    // Run, create, start.
    (17, Tests(&["the_exit_code_is_the_commands"])),
    (18, Tests(&["vic_18_23_29_43_79_what_a_container_sees_of_itself_and_is_asked_for"])),
    (19, Tests(&["input_passes_through_with_its_end"])),
    (21, No(NEIGHBORS)),
    (22, No("a port is published under a number that one chooses")),
    (23, Tests(&["vic_18_23_29_43_79_what_a_container_sees_of_itself_and_is_asked_for"])),
    (24, Tests(&["vic_24_start_and_end_are_when_they_were"])),
    (26, Tests(&["a_command_says_hello_and_its_vm_is_gone"])),
    (27, Tests(&["vic_27_42_sixteen_are_started_at_once_and_go_when_they_have_ended"])),
    (28, No(IMAGES)),
    (29, Tests(&["vic_18_23_29_43_79_what_a_container_sees_of_itself_and_is_asked_for"])),
    (31, Tests(&["vic_31_a_port_is_published_for_tcp_and_udp_and_leads_to_the_container"])),
    (32, Tests(&["vic_32_78_logs_are_followed_and_asked_for_since_a_moment"])),
    (33, No("volumes have 10 GiB unless told, and a container sees no names of disks")),
    (34, Tests(&["a_volume_may_be_read_only_fresh_nested_or_without_a_name"])),
    (36, Tests(&["vic_36_38_39_49_62_what_is_not_there_is_said_so"])),
    (37, No(API)),
    (38, Tests(&["vic_36_38_39_49_62_what_is_not_there_is_said_so"])),
    (39, Tests(&["vic_36_38_39_49_62_what_is_not_there_is_said_so"])),
    (41, No(VSPHERE)),
    (42, Tests(&["vic_27_42_sixteen_are_started_at_once_and_go_when_they_have_ended"])),
    (43, Tests(&["vic_18_23_29_43_79_what_a_container_sees_of_itself_and_is_asked_for"])),
    (44, No(NEIGHBORS)),
    (46, No("a container sees its image's /lib/modules; the kernel's own are the agent's")),
    (47, No(IMAGES)),
    (
        48,
        Partly(
            "vic_27_42_sixteen_are_started_at_once_and_go_when_they_have_ended",
            "sixteen: a hundred VMs are more than a machine of two processors boots in any time",
        ),
    ),
    // Stop, kill, restart.
    (49, Tests(&["vic_36_38_39_49_62_what_is_not_there_is_said_so"])),
    (51, Tests(&["vic_14_51_a_top_in_a_terminal_is_logged_and_stopped"])),
    (
        52,
        Partly(
            "vic_52_a_shell_that_heeds_only_hup_is_ended_by_term_under_an_init",
            "process 1 of a namespace is not ended by what it does not handle, as with Docker: with --init",
        ),
    ),
    (53, Tests(&["vic_53_a_stop_signal_that_is_heard_but_not_heeded_is_followed_by_kill"])),
    (54, Tests(&["a_process_that_does_not_heed_its_stop_signal_is_killed_vic_52_to_54"])),
    (56, No(VSPHERE)),
    (57, No(API)),
    (58, No(NEIGHBORS)),
    (59, Tests(&["a_vm_in_the_background_is_followed_attached_to_and_remembered"])),
    (61, Tests(&["vic_61_a_signal_reaches_the_process_and_not_its_children"])),
    (62, Tests(&["vic_36_38_39_49_62_what_is_not_there_is_said_so"])),
    (63, No(IMAGES)),
    (64, Tests(&["vic_64_71_one_that_starts_is_stopped_and_a_restart_keeps_its_address"])),
    (66, Tests(&["vic_66_restarts_starts_and_stops_at_once_end_in_words"])),
    (67, Tests(&["the_power_button_stops_the_container_in_order"])),
    (68, No(VSPHERE)),
    (
        69,
        Tests(&[
            "vic_117_two_networks_on_one_interface_are_two_addresses_and_routes_lead_where_they_say",
            "shut_down_guest_stops_the_container_in_order_and_powers_off",
        ]),
    ),
    (71, Tests(&["vic_64_71_one_that_starts_is_stopped_and_a_restart_keeps_its_address"])),
    // Logs.
    (72, Tests(&["the_tail_is_the_last_lines_however_they_were_cut"])),
    (73, Tests(&["a_vm_in_the_background_is_followed_attached_to_and_remembered"])),
    (74, Tests(&["vic_74_who_follows_the_last_lines_sees_what_a_signal_makes_it_say"])),
    (76, Tests(&["five_megabytes_of_noise_arrive_as_they_left"])),
    (77, Tests(&["five_megabytes_of_text_arrive_as_they_left"])),
    (78, Tests(&["vic_32_78_logs_are_followed_and_asked_for_since_a_moment"])),
    (79, Tests(&["vic_18_23_29_43_79_what_a_container_sees_of_itself_and_is_asked_for"])),
    (81, Tests(&["a_daemon_killed_amid_output_loses_nothing"])),
    (82, No("logs are not forwarded to syslog")),
    (83, No(VSPHERE)),
    // Exec.
    (84, Tests(&["vic_84_86_92_execs_in_all_forms_and_many_in_the_background"])),
    (86, Tests(&["vic_84_86_92_execs_in_all_forms_and_many_in_the_background"])),
    (87, Tests(&["an_exec_is_as_dockers_vic_84_to_91"])),
    (88, Tests(&["an_exec_is_as_dockers_vic_84_to_91"])),
    (89, Tests(&["an_exec_is_as_dockers_vic_84_to_91"])),
    (91, Tests(&["an_exec_is_as_dockers_vic_84_to_91"])),
    (92, Tests(&["vic_84_86_92_execs_in_all_forms_and_many_in_the_background"])),
    (93, Tests(&["vic_93_execs_while_it_is_stopped_say_why_they_do_not_run"])),
    (94, No("the agent is in no namespace of the container and does not show there, on purpose")),
    (96, No("a disk is not committed to an image")),
    // Users.
    (97, Tests(&["what_an_oci_image_says_about_its_process_is_honored"])),
    (98, Tests(&["vic_98_101_102_users_are_who_they_are_with_docker"])),
    (99, Tests(&["processes_are_listed_without_a_program_inside"])),
    (101, Tests(&["vic_98_101_102_users_are_who_they_are_with_docker"])),
    (102, Tests(&["vic_98_101_102_users_are_who_they_are_with_docker"])),
    // ps, inspect, wait, events.
    (103, Tests(&["a_vm_in_the_background_is_followed_attached_to_and_remembered"])),
    (104, Tests(&["vic_104_106_108_112_what_was_asked_for_is_shown_and_a_port_is_free_again"])),
    (106, Tests(&["vic_104_106_108_112_what_was_asked_for_is_shown_and_a_port_is_free_again"])),
    (
        107,
        Tests(&[
            "vic_117_two_networks_on_one_interface_are_two_addresses_and_routes_lead_where_they_say",
        ]),
    ),
    (108, Tests(&["vic_104_106_108_112_what_was_asked_for_is_shown_and_a_port_is_free_again"])),
    (109, No(VSPHERE)),
    (111, Tests(&["memory_that_runs_out_is_an_event"])),
    (112, Tests(&["vic_104_106_108_112_what_was_asked_for_is_shown_and_a_port_is_free_again"])),
    (113, No(VSPHERE)),
    (114, Tests(&["a_vm_in_the_background_is_followed_attached_to_and_remembered"])),
    (116, No(VSPHERE)),
    // Networks.
    (
        117,
        Tests(&[
            "vic_117_two_networks_on_one_interface_are_two_addresses_and_routes_lead_where_they_say",
        ]),
    ),
    (118, No(NEIGHBORS)),
    (119, No(NEIGHBORS)),
    (121, No(NEIGHBORS)),
    (
        122,
        Partly(
            "vic_117_two_networks_on_one_interface_are_two_addresses_and_routes_lead_where_they_say",
            "two, written into the config before the start",
        ),
    ),
    (123, No(FIREWALL)),
    (124, No(FIREWALL)),
    (126, No(FIREWALL)),
    (127, No(VSPHERE)),
    (128, No(IMAGES)),
    (
        129,
        Partly(
            "vic_138_copies_go_where_docker_puts_them",
            "while it runs; the agent's own /etc/hosts hides the disk's, as Docker's does",
        ),
    ),
    // Volumes, diff, cp.
    (131, Tests(&["vic_131_a_new_volume_gets_what_the_image_has_and_shows_it_elsewhere"])),
    (
        132,
        Tests(&["vic_132_a_used_volume_is_not_overwritten_and_what_agents_manage_is_seen_on_it"]),
    ),
    (133, Tests(&["vic_133_a_volume_that_a_running_container_writes_to_is_in_use"])),
    (134, No("VIC's words for a size; ours are Docker's")),
    (
        136,
        Tests(&["vic_132_a_used_volume_is_not_overwritten_and_what_agents_manage_is_seen_on_it"]),
    ),
    (137, Tests(&["vic_137_a_disk_is_compared_with_its_image"])),
    (138, Tests(&["vic_138_copies_go_where_docker_puts_them"])),
    (139, Tests(&["vic_139_ten_copies_in_and_out_at_once"])),
    (141, Tests(&["vic_141_no_archive_reaches_outside"])),
    (142, No("a disk is not committed to an image")),
    // Moves, restarts of the VCH, compose, applications.
    (143, No(VSPHERE)),
    (144, Partly("a_vm_that_stood_still_goes_on", "suspended and resumed, not moved")),
    (146, No(VSPHERE)),
    (147, No(VSPHERE)),
    (148, No(VSPHERE)),
    (149, No(VSPHERE)),
    (151, No(API)),
    (152, Tests(&["what_a_container_uses_is_measured"])),
    (153, No(VSPHERE)),
    (154, No(API)),
    (156, No(API)),
    (157, No(API)),
    (158, No(API)),
    (159, No(API)),
    (161, No(API)),
    (162, No(API)),
    (163, No(API)),
    (164, No(API)),
    (166, No(API)),
    (167, No(IMAGES)),
];

#[test]
fn every_test_that_stands_for_a_case_of_vic_exists() {
    let root = Checkout::here().root;
    let mut known = BTreeSet::new();
    for dir in ["qemu-tests/tests", "serialmux/src", "serialmux/tests", "tether/src"] {
        collect(&root.join(dir), &mut known);
    }
    let (mut last, mut n_no) = (0, 0);
    for (number, place) in CASES {
        assert!(number > last, "case {number} is out of order");
        last = number;
        let names = match place {
            Tests(names) => names.to_vec(),
            Partly(name, but) => {
                assert!(!but.is_empty(), "case {number}");
                vec![name]
            }
            No(reason) => {
                assert!(!reason.is_empty(), "case {number}");
                n_no += 1;
                continue;
            }
        };
        for name in names {
            assert!(known.contains(name), "case {number}: there is no test {name}");
        }
    }
    record(&format!(
        "cases of VIC's suite: {} in all, {n_no} have a reason instead of a test",
        CASES.len()
    ));
}

/// The names of all functions in a directory.
fn collect(dir: &Path, known: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, known);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn "));
            known.extend(names.filter_map(|rest| rest.split_once("()")).map(|it| it.0.to_owned()));
        }
    }
}
