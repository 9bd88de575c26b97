//! The shell text that gives a restored guest an identity of its own. cloud-init has made new SSH host keys by then; what
//! it leaves is `machine-id`, the random seed, and the old name beside the new one in `/etc/hosts`.
//!
//! Each file is replaced whole or not at all, and only where the image has it, so that the text may run again. Services
//! that read `machine-id` when they start (the journal) have the new one after the next boot.

use contract::{VmName, VmUuid};

/// The text for `sh` on its standard input. The machine id is the VM's UUID, as systemd itself chooses it in a VM.
pub(super) fn renewal(name: &VmName, uuid: &VmUuid) -> String {
    in_root("", name, uuid)
}

/// The same for a system whose files are below `root`.
fn in_root(root: &str, name: &VmName, uuid: &VmUuid) -> String {
    let id = uuid.as_str().replace('-', "");
    format!(
        r#"set -eu
r={root}
put() {{ cat >"$2.new" && chmod $1 "$2.new" && mv -f "$2.new" "$2"; }}
for f in $r/etc/machine-id $r/var/lib/dbus/machine-id; do
if [ -f $f ] && [ ! -L $f ] && [ "$(cat $f)" != {id} ]; then echo {id} | put 444 $f; fi
done
for f in $r/var/lib/systemd/random-seed $r/var/lib/urandom/random-seed $r/var/lib/seedrng/seed.credit; do
if [ -f $f ]; then head -c 512 /dev/urandom | put 600 $f; fi
done
if [ "$(cat $r/etc/hostname 2>/dev/null)" != {name} ]; then echo {name} | put 644 $r/etc/hostname; fi
if [ -f $r/etc/hosts ]; then
awk '/^127\.0\.1\.1[ \t]/ {{ if (!seen++) print "127.0.1.1 {name} {name}"; next }} {{ print }}' $r/etc/hosts | put 644 $r/etc/hosts
fi
k=$r/proc/sys/kernel/hostname
if [ -e $k ] && [ "$(cat $k)" != {name} ]; then echo {name} >$k; fi
sync
"#
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    fn renew(shell: &[&str], root: &Path) {
        let name = VmName::new("web2").expect("a name");
        let uuid = VmUuid::new("0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f").expect("a UUID");
        let text = root.with_extension("sh");
        std::fs::write(&text, in_root(root.to_str().expect("plain"), &name, &uuid)).expect("written");
        let status = Command::new(shell[0])
            .args(&shell[1..])
            .stdin(Stdio::from(std::fs::File::open(text).expect("there")))
            .status();
        assert!(status.expect("a shell").success(), "{shell:?}");
    }

    const OLD_ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";
    const NEW_ID: &str = "0b2d1b9e5f0f4e0b8a4e0d5f1b9e5f0f\n";

    #[test]
    fn a_copy_has_nothing_left_of_the_identity_of_its_original() {
        for shell in [&["sh"][..], &["busybox", "sh"]] {
            let folder = tempfile::tempdir().expect("a folder");
            let root = folder.path().join("root");
            let write = |path: &str, text: &str| {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
                std::fs::write(path, text).expect("written");
            };
            let read = |path: &str| std::fs::read(root.join(path)).expect("it is there");
            write("etc/machine-id", OLD_ID);
            write("var/lib/dbus/machine-id", OLD_ID);
            write("var/lib/systemd/random-seed", "old");
            write("etc/hostname", "web\n");
            let others = "127.0.0.1 localhost\n::1 localhost\n10.0.0.1 web db\n";
            write("etc/hosts", &format!("{others}127.0.1.1 web web\n127.0.1.1 web2 web2\n"));
            write("proc/sys/kernel/hostname", "web\n");

            for _ in 0..2 {
                renew(shell, &root);
                for path in ["etc/machine-id", "var/lib/dbus/machine-id"] {
                    assert_eq!(String::from_utf8_lossy(&read(path)), NEW_ID, "{shell:?} {path}");
                }
                assert_eq!(read("var/lib/systemd/random-seed").len(), 512);
                for path in ["etc/hostname", "proc/sys/kernel/hostname"] {
                    assert_eq!(read(path), b"web2\n", "{shell:?} {path}");
                }
                let hosts = String::from_utf8(read("etc/hosts")).expect("text");
                assert_eq!(hosts, format!("{others}127.0.1.1 web2 web2\n"), "{shell:?}");
            }
        }
    }

    #[test]
    fn what_an_image_does_not_have_is_not_added_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("etc")).expect("created");
        renew(&["sh"], &root);
        let names: Vec<_> = std::fs::read_dir(root.join("etc"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["hostname"]);
    }
}
