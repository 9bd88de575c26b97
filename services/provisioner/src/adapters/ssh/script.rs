//! The shell text by which a script is run inside a guest.
//!
//! ```text
//!   /var/lib/loam/install/{at}-{digest}.script    the script
//!                                      .pid       what runs it: boot id and process id
//!                                      .log       its output
//!                                      .exit      its exit status; 0 means never again
//! ```
//!
//! The script is started detached from the connection (`setsid`), so that a broken connection or our own death does not
//! end it; the next attempt finds it running and follows its log from the beginning. Its exit status is written after
//! everything that the script wrote has reached the disk (`sync`): a power cut leaves both or neither. It works in every
//! POSIX shell, busybox's included.

use std::fmt::Write;

use crate::ports::ScriptToRun;
use sha2::{Digest, Sha256};

/// Where scripts and their output are kept inside a guest.
const FOLDER: &str = "/var/lib/loam/install";

/// The text for `sh` on its standard input.
pub(super) fn wrapped(run: &ScriptToRun<'_>) -> String {
    let digest = hex::encode(Sha256::digest(run.script.text.as_bytes()));
    let name = format!("{FOLDER}/{:02}-{}", run.at, &digest[..16]);
    let mut env = String::new();
    for (key, value) in run.env {
        // The name was checked to be one; the value is quoted.
        let _ = writeln!(env, "export {key}={}", quoted(value));
    }
    // No text holds its own digest at the beginning of a line.
    let end = format!("END-OF-SCRIPT-{digest}");
    format!(
        r#"set -eu
umask 077
n={name}
mkdir -p {FOLDER}
if [ "$(cat $n.exit 2>/dev/null)" = 0 ]; then exit 0; fi
boot=$(cat /proc/sys/kernel/random/boot_id)
alive() {{ read -r b p 2>/dev/null <$n.pid && [ "$b" = "$boot" ] && kill -0 "$p" 2>/dev/null; }}
if ! alive; then
rm -f $n.exit $n.pid
: >$n.log
cat >$n.script <<'{end}'
{text}
{end}
chmod 700 $n.script
cat >$n.start <<'{end}'
{env}echo "$1 $$" >$0.new && mv $0.new ${{0%.start}}.pid
${{0%.start}}.script >${{0%.start}}.log 2>&1 </dev/null && e=0 || e=$?
sync
echo $e >${{0%.start}}.ended && mv ${{0%.start}}.ended ${{0%.start}}.exit
{end}
setsid sh $n.start "$boot" </dev/null >/dev/null 2>&1 &
while [ ! -e $n.pid ] && [ ! -e $n.exit ]; do sleep 1; done
fi
at=0
while :; do
ended=; if [ -e $n.exit ] || ! alive; then ended=1; fi
have=$(wc -c <$n.log)
if [ "$have" -gt "$at" ]; then tail -c +$((at + 1)) $n.log | head -c $((have - at)); at=$have; fi
if [ -n "$ended" ]; then break; fi
sleep 1
done
if [ ! -e $n.exit ]; then echo "the script was ended from outside"; exit 125; fi
rm -f $n.pid $n.start
exit "$(cat $n.exit)"
"#,
        text = run.script.text.trim_end_matches('\n'),
    )
}

/// The text that writes all that the guest holds in memory for its disks.
pub(super) const FLUSH: &str = "sync\n";

/// A text as one quoted argument of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Output};
    use std::time::Duration;

    use contract::provisioner::Script;

    use super::*;

    /// Runs the wrapper in a shell of this machine, in a folder instead of the guest's.
    fn run_here(shell: &[&str], folder: &std::path::Path, text: &str, env: &[(&str, &str)]) -> Output {
        let script = Script { name: "test.sh".into(), text: text.into() };
        let env: BTreeMap<String, String> =
            env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let run = ScriptToRun { at: 0, script: &script, env: &env, timeout: Duration::from_secs(10) };
        let wrapped = wrapped(&run).replace(FOLDER, folder.to_str().expect("plain"));
        let file = folder.with_extension("sh");
        std::fs::write(&file, wrapped).expect("written");
        Command::new(shell[0])
            .args(&shell[1..])
            .stdin(std::fs::File::open(&file).expect("there"))
            .output()
            .expect("a shell")
    }

    const SHELLS: [&[&str]; 2] = [&["sh"], &["busybox", "sh"]];

    #[test]
    fn what_a_script_wrote_is_on_the_disk_before_its_success_is_noted() {
        let root = tempfile::tempdir().expect("a folder");
        let (folder, seen) = (root.path().join("install"), root.path().join("seen"));
        let (bin, written) = (root.path().join("bin"), root.path().join("written"));
        // In place of `sync`: it notes what there is when it is called.
        std::fs::create_dir(&bin).expect("a folder");
        let text = format!(
            "#!/bin/sh\nls {} {}/*.exit >>{} 2>&1\n",
            written.display(),
            folder.display(),
            seen.display()
        );
        std::fs::write(bin.join("sync"), text).expect("written");
        std::fs::set_permissions(bin.join("sync"), PermissionsExt::from_mode(0o755)).expect("executable");
        let path = format!("PATH={}:{}", bin.display(), std::env::var("PATH").expect("a path"));
        let ran = run_here(
            &["env", &path, "sh"],
            &folder,
            &format!("#!/bin/sh\necho x >{}\n", written.display()),
            &[],
        );
        assert!(ran.status.success(), "{ran:?}");
        let seen = std::fs::read_to_string(&seen).expect("it was called");
        let lines: Vec<&str> = seen.lines().collect();
        assert!(lines.contains(&written.to_str().expect("plain")), "{seen}");
        assert!(!lines.iter().any(|line| line.ends_with(".exit")), "{seen}");
    }

    #[test]
    fn a_script_runs_once_with_its_variables_and_its_output_is_returned() {
        for shell in SHELLS {
            let root = tempfile::tempdir().expect("a folder");
            let folder = root.path().join("install");
            let ran = root.path().join("ran");
            let text =
                format!("#!/bin/sh\necho \"$GREETING\"\necho again >>{}\nprintf 'no newline'", ran.display());
            let greeting = "it's \"here\" $HOME\nand there";
            let first = run_here(shell, &folder, &text, &[("GREETING", greeting)]);
            assert!(first.status.success(), "{shell:?} {first:?}");
            assert_eq!(String::from_utf8_lossy(&first.stdout), format!("{greeting}\nno newline"));
            let second = run_here(shell, &folder, &text, &[("GREETING", greeting)]);
            assert!(second.status.success(), "{shell:?} {second:?}");
            assert_eq!(std::fs::read_to_string(&ran).expect("it ran"), "again\n");
        }
    }

    #[test]
    fn a_script_that_fails_returns_its_status_and_runs_again() {
        for shell in SHELLS {
            let root = tempfile::tempdir().expect("a folder");
            let folder = root.path().join("install");
            let text = "#!/bin/sh\necho oh no\nexit 7\n";
            for _ in 0..2 {
                let ended = run_here(shell, &folder, text, &[]);
                assert_eq!(ended.status.code(), Some(7), "{shell:?} {ended:?}");
                assert_eq!(String::from_utf8_lossy(&ended.stdout), "oh no\n");
            }
        }
    }

    #[test]
    fn a_script_goes_on_when_its_connection_breaks_and_is_found_again() {
        for shell in SHELLS {
            let root = tempfile::tempdir().expect("a folder");
            let folder = root.path().join("install");
            let gate = root.path().join("gate");
            let ran = root.path().join("ran");
            let text = format!(
                "#!/bin/sh\necho begun >>{0}\nwhile [ ! -e {1} ]; do sleep 0.05; done\necho done\n",
                ran.display(),
                gate.display()
            );
            let (folder2, text2) = (folder.clone(), text.clone());
            let shell2: Vec<String> = shell.iter().map(|part| (*part).to_owned()).collect();
            let follower = std::thread::spawn(move || {
                let shell: Vec<&str> = shell2.iter().map(String::as_str).collect();
                run_here(&shell, &folder2, &text2, &[])
            });
            let until = std::time::Instant::now() + Duration::from_secs(20);
            while !ran.exists() {
                assert!(std::time::Instant::now() < until, "it never began");
                std::thread::sleep(Duration::from_millis(20));
            }
            // A second connection comes while the script runs; both follow the one run to its end.
            let (folder3, text3) = (folder.clone(), text.clone());
            let shell3: Vec<String> = shell.iter().map(|part| (*part).to_owned()).collect();
            let second = std::thread::spawn(move || {
                let shell: Vec<&str> = shell3.iter().map(String::as_str).collect();
                run_here(&shell, &folder3, &text3, &[])
            });
            std::fs::write(&gate, "").expect("opened");
            for connection in [follower, second] {
                let ended = connection.join().expect("no panic");
                assert!(ended.status.success(), "{shell:?} {ended:?}");
            }
            assert_eq!(std::fs::read_to_string(&ran).expect("it ran"), "begun\n");
        }
    }
}
