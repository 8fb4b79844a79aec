//! The runner, with real programs.

use riposte_protocol::message::MAX_OUTPUT_BYTES;

use super::*;

fn shell(script: &str) -> Program {
    Program::new("sh", ["-c", script])
}

#[tokio::test]
async fn the_exit_status_and_both_outputs_are_read() {
    let exit = Runner::new().run(&shell("echo out; echo err >&2; exit 7")).await.unwrap();
    assert_eq!(exit, Exit { code: 7, stdout: "out\n".into(), stderr: "err\n".into() });
    let exit = Runner::new().run(&shell("kill -9 $$")).await.unwrap();
    assert_eq!(exit.code, 137);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_that_names_it() {
    let error = Runner::new().run(&Program::new("no-such-program", [])).await.unwrap_err();
    assert!(error.to_string().contains("no-such-program not found"), "{error}");
}

#[tokio::test]
async fn megabytes_of_output_are_drained_and_cut() {
    let script = "head -c 5000000 /dev/zero | tr '\\0' x; head -c 5000000 /dev/zero >&2; echo end >&2";
    let exit = Runner::new().run(&shell(script)).await.unwrap();
    assert_eq!(exit.code, 0);
    assert!(exit.stdout.len() <= MAX_OUTPUT_BYTES && exit.stderr.len() <= MAX_OUTPUT_BYTES);
    assert!(exit.stdout.starts_with("xxx") && exit.stdout.contains("[cut: about 49"), "{}", &exit.stdout[16300..]);
    let both = join(&exit.stdout, &exit.stderr);
    assert!(both.len() <= MAX_OUTPUT_BYTES && both.contains("[cut: about"));
}

#[tokio::test]
async fn output_that_is_not_utf_8_stays_within_the_bound() {
    let exit = Runner::new().run(&shell("head -c 20000 /dev/zero | tr '\\0' '\\377'")).await.unwrap();
    assert!(exit.stdout.len() <= MAX_OUTPUT_BYTES);
    let exit = Runner::new().run(&shell("head -c 16384 /dev/zero | tr '\\0' x")).await.unwrap();
    assert_eq!(exit.stdout.len(), MAX_OUTPUT_BYTES, "at the bound nothing is cut");
    assert!(exit.stdout.ends_with('x'));
}

#[tokio::test]
async fn a_program_reads_its_input_and_nothing_else() {
    let exit = Runner::new().run(&Program::new("cat", []).stdin("hello")).await.unwrap();
    assert_eq!(exit.stdout, "hello");
    let exit = Runner::new().run(&Program::new("cat", []).stdin("")).await.unwrap();
    assert_eq!(exit.stdout, "", "nothing to read is an end too");
    let long = "x".repeat(1_000_000);
    let exit = Runner::new().run(&Program::new("wc", ["-c"]).stdin(long.as_str())).await.unwrap();
    assert_eq!(exit.stdout.trim(), "1000000");
    let exit = Runner::new().run(&Program::new("cat", [])).await.unwrap();
    assert_eq!(exit.stdout, "", "without input it reads the end, and does not hang");
    let exit = Runner::new().run(&Program::new("env", [])).await.unwrap();
    let mut names: Vec<&str> = exit.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["LC_ALL", "PATH"]);
}

#[tokio::test]
async fn the_time_out_kills_grandchildren_too() {
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    let script =
        format!("sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 1000' & echo begun; wait", pid_file.display());
    let program = shell(&script).timeout(Duration::from_millis(700));
    let error = Runner::new().run(&program).await.unwrap_err();
    let RunError::TimedOut { output, .. } = &error else { panic!("{error}") };
    assert_eq!(output, "begun\n");
    let grandchild: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        // Killed, or a zombie that its new parent has not reaped yet.
        stat.is_empty() || stat.contains(") Z ")
    };
    while !gone() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_child_left_behind_with_the_pipe_does_not_hold_the_agent_up() {
    let begun = Instant::now();
    let exit = Runner::new().run(&shell("sleep 20 & echo done")).await.unwrap();
    assert_eq!((exit.code, exit.stdout.as_str()), (0, "done\n"));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_program_is_shown_as_it_would_be_typed() {
    let program = Program::new("nft", ["-f", "-"]).stdin("add table inet x\n");
    assert_eq!(program.text(), "nft -f - <<< 'add table inet x'");
    assert_eq!(Program::new("usermod", ["--expiredate", ""]).text(), "usermod --expiredate ''");
}

/// Output of a program that is sent `told` after each line `ask`, and how long it ran.
async fn conversation(script: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut answer = |line: &str| (line == "ask").then(|| "told\n".to_owned());
    let program = shell(script).stdin("begin\n").timeout(Duration::from_secs(20));
    let exit = Runner::new().converse(&program, &mut answer).await.unwrap();
    assert_eq!(exit.code, 0, "{script}: {exit:?}");
    (exit.stdout, begun.elapsed())
}

#[tokio::test]
async fn a_program_that_thinks_before_it_asks_is_answered_however_long_it_thinks() {
    let python = "python3 -uc 'import sys, threading, time\nsys.stdin.readline()\ntime.sleep(3)\nprint(\"ask\")\nprint(sys.stdin.readline())'";
    // One thread waits for the answer while another still prepares the question.
    let threads = "python3 -uc 'import sys, threading, time\nsys.stdin.readline()\n\
        def ask():\n  time.sleep(3)\n  print(\"ask\")\nthreading.Thread(target=ask).start()\nprint(sys.stdin.readline())'";
    let scripts = [
        "read first; sleep 3; echo ask; read answer; echo $answer",
        python,
        threads,
        // Another process prepares the question: a child, one behind a pipe, one in a group of its
        // own, and one whose parent has ended.
        "read first; question=$(sleep 3; echo ask); echo $question; read answer; echo $answer",
        "read first; (sleep 3; echo ask) & read answer; echo $answer; wait",
        "read first; timeout 10 sh -c 'sleep 3; echo ask; read answer; echo $answer'",
        "read first; (sh -c 'sleep 3; echo ask' &); read answer; echo $answer",
    ];
    let all = futures_util::future::join_all(scripts.map(conversation)).await;
    for (script, (printed, took)) in scripts.iter().zip(all) {
        assert!(printed.trim().ends_with("told"), "{script}: {printed}");
        assert!(took >= Duration::from_secs(3), "{script}");
    }
}

#[tokio::test]
async fn the_input_of_a_program_that_reads_to_the_end_is_closed_at_once() {
    let scripts = [
        "cat",
        "exec cat",
        "x=$(cat); echo \"$x\"",
        "cat | cat",
        "timeout 10 cat",
        "(exec cat)",
        "python3 -c 'import sys; print(sys.stdin.read())'",
        "python3 -c 'import select, sys\nselect.poll().register(0)\np = select.poll(); p.register(0, select.POLLIN)\n\
            import os\nwhile True:\n  p.poll()\n  d = os.read(0, 99)\n  if not d: break\n  print(d.decode())'",
        "python3 -c 'import os, select\np = select.epoll(); p.register(0, select.EPOLLIN)\n\
            while True:\n  p.poll()\n  d = os.read(0, 99)\n  if not d: break\n  print(d.decode())'",
        // After an answer too.
        "echo ask; cat",
        "read first; echo $first; sleep 1; echo ask; cat",
    ];
    for script in scripts {
        let (printed, took) = conversation(script).await;
        assert!(printed.contains("begin"), "{script}: {printed}");
        assert!(took < Duration::from_secs(4), "{script}: {took:?}");
    }
}

#[tokio::test]
async fn an_answer_is_read_whole_or_not_at_all() {
    let print = |bytes: usize| {
        Program::new("sh", ["-c", "head -c \"$0\" /dev/zero | tr '\\0' x"]).arguments(&[&bytes.to_string()])
    };
    let long = 3 * MAX_OUTPUT_BYTES;
    assert!(Runner::new().run(&print(long)).await.unwrap().stdout.len() <= MAX_OUTPUT_BYTES);
    assert_eq!(Runner::new().ask(&print(long)).await.unwrap().stdout.len(), long);
    let error = Runner::new().ask(&print(MAX_ANSWER_BYTES + 1)).await.unwrap_err();
    assert!(matches!(error, RunError::NoAnswer { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_whose_end_another_program_holds_back_is_none() {
    let program = Program::new("sh", ["-c", "echo begun; (sleep 20; echo end) & exit 0"]);
    let error = Runner::new().ask(&program).await.unwrap_err();
    assert!(matches!(error, RunError::NoAnswer { .. }), "{error}");
}
