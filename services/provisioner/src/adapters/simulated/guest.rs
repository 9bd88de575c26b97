//! A simulated guest's web server: one small page, which shows and changes a note on its disk.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::note::{self, SimulatedGuestState, TEXT_BYTES_MAX};
use crate::ports::{DiskError, VmSpec};

/// Connections at a time; a simulated page needs no more.
const CONNECTIONS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 8 * 1024;
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// A guest that runs. Dropping it closes its ports.
pub(super) struct Guest {
    listeners: Vec<JoinHandle<()>>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

impl Guest {
    /// Listens on a VM's ports. A port that may not be opened is left out, with a warning.
    ///
    /// # Errors
    /// When the address is in use: try another one.
    pub(super) async fn serve(spec: &VmSpec, address: IpAddr) -> std::io::Result<Guest> {
        let mut guest = Guest { listeners: Vec::new() };
        let spec = Arc::new(spec.clone());
        for port in &spec.simulated_ports {
            match TcpListener::bind(SocketAddr::new(address, *port)).await {
                Ok(listener) => guest.listeners.push(tokio::spawn(accept(listener, Arc::clone(&spec)))),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => return Err(error),
                Err(error) => {
                    tracing::warn!(%address, port, %error, "a simulated guest cannot listen on one of its ports");
                }
            }
        }
        Ok(guest)
    }
}

async fn accept(listener: TcpListener, spec: Arc<VmSpec>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let spec = Arc::clone(&spec);
                tokio::spawn(async move {
                    match tokio::time::timeout(REQUEST_MAX, handle(stream, &spec)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "a connection to a simulated guest broke"),
                        Err(_) => tracing::debug!("a connection to a simulated guest took too long"),
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a simulated guest cannot accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn handle(mut stream: TcpStream, spec: &VmSpec) -> std::io::Result<()> {
    let (head, mut body) = match read_head(&mut stream).await? {
        Some(parts) => parts,
        None => return reply(&mut stream, "431 Request Header Fields Too Large", "", true).await,
    };
    let mut lines = head.lines();
    let method = lines.next().and_then(|line| line.split(' ').next()).unwrap_or("");
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    match method {
        "GET" | "HEAD" => match page(spec).await {
            Ok(page) => reply(&mut stream, "200 OK", &page, method == "GET").await,
            Err(error) => reply(&mut stream, "503 Service Unavailable", &error.to_string(), true).await,
        },
        "PUT" if length <= TEXT_BYTES_MAX => {
            let have = body.len();
            body.resize(length.max(have), 0);
            stream.read_exact(&mut body[have..]).await?;
            let text = String::from_utf8_lossy(&body[..length]).into_owned();
            match change(spec, |note| note.text = text).await {
                Ok(()) => reply(&mut stream, "204 No Content", "", false).await,
                Err(error) => reply(&mut stream, "503 Service Unavailable", &error.to_string(), true).await,
            }
        }
        "PUT" => reply(&mut stream, "413 Content Too Large", "", true).await,
        _ => reply(&mut stream, "405 Method Not Allowed", "", true).await,
    }
}

/// The request's head, and what came with it of the body.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = read.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&read).into_owned(), body)));
        }
        if read.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn reply(stream: &mut TcpStream, status: &str, body: &str, with_body: bool) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if with_body {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

async fn page(spec: &VmSpec) -> Result<String, DiskError> {
    let note = match spec.disks.first() {
        Some(disk) => note::read(&disk.image).await?,
        None => SimulatedGuestState::default(),
    };
    let scripts: String = note.scripts.iter().map(|script| format!("<li>{}\n", escaped(script))).collect();
    Ok(format!(
        "<!doctype html>\n<title>{0}</title>\n<h1>{0}</h1>\n<p>This VM is simulated: no guest runs here.\n\
         <p>Scripts that a real one would have run:\n<ul>\n{scripts}</ul>\n<pre>{1}</pre>\n",
        spec.mark.vm,
        escaped(&note.text)
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Changes the note on a VM's first disk. Two changes at once would lose one: they take turns.
pub(super) async fn change(
    spec: &VmSpec,
    how: impl FnOnce(&mut SimulatedGuestState),
) -> Result<(), DiskError> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let Some(disk) = spec.disks.first() else {
        return Ok(());
    };
    let before = note::read(&disk.image).await?;
    let mut after = before.clone();
    how(&mut after);
    if after == before {
        return Ok(());
    }
    note::write(&disk.image, &after).await
}
