//! Faults that a Linux kernel reports on its console. Its messages are English and stay the same from release to release.

use atp_api::KernelFault;

/// The fault that the kernel reports in this line. A fault has many lines, and only one of them counts.
///
/// A message is recognised at the start of the line, after the kernel's level and time (`<0>[   12.345678][ T42] `), and with such a
/// time also after a prompt, as the kernel begins no new line there (`vm1 login: [  242.1] INFO: task …`). A program of the guest
/// that writes such a line to the console cannot be told from the kernel.
pub fn kernel_fault(line: &str) -> Option<KernelFault> {
    let message = message(line);
    let starts = |words: &[&str]| words.iter().any(|words| message.starts_with(words));
    if starts(&["Kernel panic - not syncing"]) {
        Some(KernelFault::Panic)
    } else if starts(&["INFO: task "]) && message.contains(" blocked ") && message.contains(" for more than ")
    {
        Some(KernelFault::HungTask)
    } else if starts(&["Out of memory: Kill", "Memory cgroup out of memory: Kill"]) {
        Some(KernelFault::OutOfMemory)
    } else if is_lockup(message) {
        Some(KernelFault::Lockup)
    } else if is_oops(message) {
        Some(KernelFault::Oops)
    } else {
        None
    }
}

/// The line without the level, the time and the caller before a message.
fn message(line: &str) -> &str {
    let mut rest = after_prompt(line).trim_start();
    if let Some((level, after)) = rest.strip_prefix('<').and_then(|level| level.split_once('>'))
        && is_number(level)
    {
        rest = after.trim_start();
    }
    // The time in seconds, and the task or the processor that wrote it: [ T42], [ C0].
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        let inside = inside.trim_start();
        let is_time = is_time(inside);
        let is_caller = inside.strip_prefix(['T', 'C']).is_some_and(is_number);
        if !is_time && !is_caller {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

/// The line from the kernel's time on, if it comes after a prompt of a login or a shell; or else all of it.
fn after_prompt(line: &str) -> &str {
    const PROMPTS: [&str; 4] = ["login: ", "assword: ", "# ", "$ "];
    // A time is short; a line may have many brackets.
    const LONGEST_TIME: usize = 24;
    let is_start = |&at: &usize| {
        let (before, after) = (&line[..at], &line[at + 1..]);
        let end = after.bytes().take(LONGEST_TIME).position(|byte| byte == b']');
        PROMPTS.iter().any(|prompt| before.ends_with(prompt))
            && end.is_some_and(|end| is_time(after[..end].trim_start()))
    };
    let start = line.match_indices('[').map(|(at, _)| at).find(is_start);
    start.map_or(line, |at| &line[at..])
}

fn is_time(text: &str) -> bool {
    text.split_once('.').is_some_and(|(s, us)| is_number(s) && is_number(us))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `watchdog: BUG: soft lockup - CPU#1 stuck for 22s!`, `NMI watchdog: Watchdog detected hard LOCKUP on cpu 0`.
fn is_lockup(message: &str) -> bool {
    let message = message.strip_prefix("NMI ").unwrap_or(message);
    let message = message.strip_prefix("watchdog: ").unwrap_or(message);
    message.starts_with("BUG: soft lockup - CPU#") || message.starts_with("Watchdog detected hard LOCKUP")
}

/// The line that every oops has once: what happened, an error code, and the number of the oops: `Oops: 0002 [#1] SMP`,
/// `invalid opcode: 0000 [#1]`, `Internal error: Oops - BUG: 00000000f2000800 [#2]`.
fn is_oops(message: &str) -> bool {
    let Some((what, after)) = message.split_once("[#") else { return false };
    let Some((number, _)) = after.split_once(']') else { return false };
    let Some(what) = what.strip_suffix(' ') else { return false };
    let code = what.rsplit_once(": ").map_or("", |(_, code)| code);
    let has_code = (4..=16).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number(number) && (what.starts_with("Oops") || what.starts_with("Internal error") || has_code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_of_kernels_are_recognised() {
        use KernelFault::{HungTask, Lockup, Oops, OutOfMemory, Panic};
        for (line, fault) in [
            ("Kernel panic - not syncing: sysrq triggered crash", Panic),
            (
                "[    3.141592] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
                Panic,
            ),
            (
                "<0>[   12.000001][    T1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
                Panic,
            ),
            ("[  242.1] INFO: task kworker/0:1:17 blocked for more than 120 seconds.", HungTask),
            ("INFO: task dd:912 blocked in I/O wait for more than 30 seconds.", HungTask),
            (
                "[ 7.0] Out of memory: Killed process 311 (stress) total-vm:2097152kB, anon-rss:90000kB",
                OutOfMemory,
            ),
            ("Out of memory: Kill process 311 (stress) score 905 or sacrifice child", OutOfMemory),
            (
                "[    7.125000][  T311] Memory cgroup out of memory: Killed process 99 (a b) total-vm:1kB",
                OutOfMemory,
            ),
            ("[ 1.5] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [modprobe:40]", Lockup),
            ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 0", Lockup),
            ("[ 2.0] Oops: 0002 [#1] PREEMPT SMP PTI", Oops),
            ("[ 2.0] Oops: Oops: 0000 [#1] SMP NOPTI", Oops),
            ("invalid opcode: 0000 [#2] SMP", Oops),
            (
                "general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP",
                Oops,
            ),
            ("Internal error: Oops: 0000000096000004 [#1] PREEMPT SMP", Oops),
            ("Oops: Kernel access of bad area, sig: 11 [#1]", Oops),
            ("debian login: [  242.669341] INFO: task dd:912 blocked for more than 120 seconds.", HungTask),
            ("[root@vm1 ~]# [  242.1][   T33] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!", Lockup),
        ] {
            assert_eq!(kernel_fault(line), Some(fault), "{line}");
        }
    }

    #[test]
    fn other_lines_are_no_faults() {
        for line in [
            "",
            "login: ",
            "[ 2.0] BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "[ 2.0] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
            "[ 2.0] stress invoked oom-killer: gfp_mask=0x100cca",
            "[ 2.0] traps: foo[123] general protection fault ip:55 sp:7f error:0 in foo[55+1000]",
            "issue [#12] is open: see 4711",
            "fixed in 4711 [#12]",
            "grep 'Kernel panic - not syncing' /var/log/messages",
            "[init] Kernel panic - not syncing: text of a program with a name in brackets",
            "INFO: task is done",
            "Nov 29 02:00:01 vm1 kernel: [   12.1] Kernel panic - not syncing: read again from a log",
            "debian login: Kernel panic - not syncing: typed",
            "Oops",
            "[[[[",
            "<>[.]",
        ] {
            assert_eq!(kernel_fault(line), None, "{line}");
        }
    }

    /// What a kernel writes before a message.
    fn prefix() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just(String::new()), (0..8_u8).prop_map(|level| format!("<{level}>"))];
        let time = prop_oneof![
            Just(String::new()),
            (0..99_999_u32, 0..1_000_000_u32).prop_map(|(s, us)| format!("[{s:5}.{us:06}]"))
        ];
        let caller = prop_oneof![
            Just(String::new()),
            (0..99_999_u32).prop_map(|task| format!("[{:>6}]", format!("T{task}")))
        ];
        (level, time, caller).prop_map(|(level, time, caller)| match (time.as_str(), caller.as_str()) {
            ("", "") => level,
            _ => format!("{level}{time}{caller} "),
        })
    }

    proptest! {
        #[test]
        fn a_message_is_the_same_fault_whatever_is_before_and_after_it(before in prefix(), after in "[ -~]{0,40}") {
            prop_assert_eq!(
                kernel_fault(&format!("{before}Kernel panic - not syncing: {after}")),
                Some(KernelFault::Panic)
            );
            let killed = format!("{before}Out of memory: Killed process 1 (a) {after}");
            prop_assert_eq!(kernel_fault(&killed), Some(KernelFault::OutOfMemory));
        }

        #[test]
        fn a_message_after_other_text_is_no_fault(before in "[a-zA-Z]{1,9}", words in prefix()) {
            prop_assert_eq!(kernel_fault(&format!("{before}{words}Kernel panic - not syncing: x")), None);
        }

        #[test]
        fn any_line_can_be_judged(line in "\\PC{0,80}", marks in "[\\[\\]<>#:. 0-9a-zT]{0,40}") {
            let _ = kernel_fault(&line);
            let _ = kernel_fault(&marks);
        }
    }
}
