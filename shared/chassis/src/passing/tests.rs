use std::fs::File;
use std::io::Read;
use std::process::Command;

use super::*;

const IN_TIME: Duration = Duration::from_secs(10);

/// Serves a file by its name, `secret` never.
fn open(path: &Path, folder: &Path, reader: Option<u32>) -> DescriptorServer {
    let folder = folder.to_path_buf();
    DescriptorServer::open(path, reader, move |name: String| {
        let file = folder.join("given");
        async move {
            if name != "given" {
                return Err(format!("{name} is not in the table"));
            }
            File::open(file).map(OwnedFd::from).map_err(|error| error.to_string())
        }
    })
    .expect("opened")
}

#[tokio::test]
async fn what_is_in_the_table_is_passed_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("passing.sock");
    std::fs::write(folder.path().join("given"), "content").expect("written");
    let server = open(&path, folder.path(), None);
    let descriptor = request_descriptor(&path, &"given", IN_TIME).await.expect("passed");
    let mut text = String::new();
    File::from(descriptor).read_to_string(&mut text).expect("it is open");
    assert_eq!(text, "content");
    for wrong in ["other", "../given", "/etc/shadow", ""] {
        let refused = request_descriptor(&path, &wrong, IN_TIME).await.expect_err("refused");
        assert!(
            matches!(&refused, PassingError::Refused(why) if why.ends_with("is not in the table")),
            "{refused}"
        );
    }
    let refused = request_descriptor(&path, &7, IN_TIME).await.expect_err("refused");
    assert!(matches!(&refused, PassingError::Refused(why) if why.contains("cannot be read")), "{refused}");
    let long = "x".repeat(2 * REQUEST_BYTES_MAX as usize);
    request_descriptor(&path, &long, IN_TIME).await.expect_err("too long");
    drop(server);
    assert!(matches!(
        request_descriptor(&path, &"given", IN_TIME).await,
        Err(PassingError::Unreachable { .. })
    ));
}

#[tokio::test]
async fn readers_that_stall_leave_room_for_others_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("passing.sock");
    std::fs::write(folder.path().join("given"), "content").expect("written");
    let _server = open(&path, folder.path(), None);
    let mut stalled = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        stalled.push(UnixStream::connect(&path).await.expect("connected"));
    }
    let waiting = READ_MAX * 3 + IN_TIME;
    request_descriptor(&path, &"given", waiting).await.expect("passed when they have been given up");
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("passing.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let answers: [&[u8]; 4] = [b"\"passed\"\n", b"\"pass", b"{}\n", &[b'x'; 3 * ANSWER_BYTES_MAX]];
    let answering = tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a reader");
            // It may have gone already.
            drop(stream.write_all(answer).await);
        }
        listener
    });
    for answer in answers {
        let error = request_descriptor(&path, &"given", IN_TIME).await.expect_err("no descriptor");
        // A reader that gives up early may see its own request cut off.
        assert!(
            matches!(error, PassingError::BadAnswer { .. } | PassingError::Unreachable { .. }),
            "{:?}: {error}",
            String::from_utf8_lossy(&answer[..answer.len().min(20)])
        );
    }
    let _silent = answering.await.expect("answered");
    let late = request_descriptor(&path, &"given", Duration::from_millis(50)).await.expect_err("silence");
    assert!(matches!(late, PassingError::TimedOut { .. }), "{late}");
}

/// Connects as another user, sends a request and prints how the connection ends.
const AS_OTHER: &str = "import os,socket,sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
s=socket.socket(socket.AF_UNIX)
try: s.connect(sys.argv[1])
except PermissionError: sys.exit('no connection')
try:
  s.sendall(b'\"given\"\\n')
  data,control,_,_=s.recvmsg(4096,64)
except (BrokenPipeError, ConnectionResetError): data,control=b'',[]
print(data.decode().strip(), len(control))";

fn as_user(uid: u32, path: &Path) -> String {
    let output = Command::new("python3").args(["-c", AS_OTHER]).arg(path).arg(uid.to_string()).output();
    let output = output.expect("python3 runs");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).trim().to_string()
}

#[tokio::test]
async fn only_the_user_that_was_named_gets_a_descriptor() {
    // Only root can become others.
    if !geteuid().is_root() {
        return;
    }
    const READER: u32 = 60_001;
    const OTHER: u32 = 60_002;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("open");
    let path = folder.path().join("passing.sock");
    std::fs::write(folder.path().join("given"), "content").expect("written");
    let _server = open(&path, folder.path(), Some(READER));
    let ask = async |uid| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || as_user(uid, &path)).await.expect("asked")
    };
    assert_eq!(ask(READER).await, "\"passed\" 1");
    assert_eq!(ask(OTHER).await, "no connection");
    request_descriptor(&path, &"given", IN_TIME).await.expect("our own user, too");
    // Not by the mode of the socket alone.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("set");
    assert_eq!(ask(OTHER).await, "0");
}
