//! The HTTP frontend beside nginx, in one run: the same upstream behind them, the same clients before them.
//!
//! ```text
//!   core 1: clients ──> core 0: frontend, or nginx with one worker ──> core 1: upstream
//! ```
//!
//! Rounds alternate, so that other load on the host affects both. CPU time per request is the figure to trust; requests
//! per second depend on the CPU time that the clients leave. Both write an access record for each request to
//! `/dev/null`, and both send forwarding headers. Needs Debian's `nginx-light`; leaves no files behind.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use contract::{DomainName, VmName};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use proxy::adapters::frontend::{HttpFrontend, Settings};
use proxy::ports::Frontend;
use proxy_domain::{DomainClaim, RouteTable, UpstreamState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CLIENTS: usize = 32;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
const SMALL_BYTES: usize = 1024;
const LARGE_BYTES: usize = 10 * 1024 * 1024;

fn main() {
    if let Ok(upstream) = std::env::var("LOAM_BENCH_UPSTREAM") {
        return serve_frontend(upstream.parse().expect("an address"));
    }
    pin_to_core(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(compare());
}

async fn compare() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream_address = upstream.local_addr().expect("bound");
    tokio::spawn(serve_upstream(upstream));
    let folder = tempfile::tempdir().expect("a folder for nginx's temporary files");
    let proxies = [start_frontend(upstream_address), start_nginx(upstream_address, folder.path()).await];

    for (what, path, clients) in [("1 KiB responses", "/small", CLIENTS), ("10 MiB responses", "/large", 4)] {
        let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (proxy, rounds) in proxies.iter().zip(&mut rounds) {
                load(proxy.address, path, clients, WARM_UP).await;
                rounds.push(measure(proxy, path, clients).await);
            }
        }
        println!("\n{what}, {clients} connections, median of {ROUNDS} rounds of {} s", ROUND.as_secs());
        println!("{:9} {:>12} {:>16} {:>9} {:>9}", "", "requests/s", "CPU µs/request", "p50 ms", "p99 ms");
        let medians = rounds.map(Round::median);
        for (proxy, round) in proxies.iter().zip(&medians) {
            println!(
                "{:9} {:>12.0} {:>16.1} {:>9.2} {:>9.2}",
                proxy.name, round.requests_per_second, round.cpu_us, round.p50_ms, round.p99_ms
            );
        }
        let [frontend, nginx] = medians;
        println!(
            "frontend / nginx: CPU for a request × {:.2}, requests/s × {:.2}",
            frontend.cpu_us / nginx.cpu_us,
            frontend.requests_per_second / nginx.requests_per_second
        );
    }
    for proxy in &proxies {
        println!("{:9} resident {} KiB", proxy.name, resident_kib(proxy.process.id()));
    }
}

/// A proxy in a process of its own, ended when dropped.
struct Proxy {
    name: &'static str,
    process: Child,
    address: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself; nothing is left to do then.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn start_frontend(upstream: SocketAddr) -> Proxy {
    let mut process = Command::new(std::env::current_exe().expect("this program"))
        .env("LOAM_BENCH_UPSTREAM", upstream.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts again");
    let mut line = String::new();
    let stdout = process.stdout.take().expect("piped");
    std::io::BufReader::new(stdout).read_line(&mut line).expect("the frontend prints its address");
    Proxy { name: "frontend", process, address: line.trim().parse().expect("an address") }
}

/// Runs in the frontend's own process.
fn serve_frontend(upstream: SocketAddr) {
    pin_to_core(0);
    let log = std::fs::OpenOptions::new().append(true).open("/dev/null").expect("/dev/null");
    tracing_subscriber::fmt().json().with_writer(std::sync::Mutex::new(log)).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let frontend = HttpFrontend::start(SocketAddr::from(([127, 0, 0, 1], 0)), Settings::default())
            .await
            .expect("a free port");
        let claim = DomainClaim {
            vm: VmName::new("web").expect("valid"),
            domains: vec![DomainName::new("web.example").expect("valid")],
            target: UpstreamState::Up(upstream),
        };
        frontend.swap(RouteTable::build(&frontend.table(), [claim]).0);
        println!("{}", frontend.address());
        std::io::stdout().flush().expect("the parent reads");
        std::future::pending::<()>().await;
    });
}

async fn start_nginx(upstream: SocketAddr, folder: &Path) -> Proxy {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let folder = folder.display();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
         events {{ worker_connections 1024; }}
         http {{
           access_log /dev/null combined; keepalive_requests 1000000000; tcp_nodelay on;
           client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
           uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
           upstream upstream {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}
           server {{
             listen 127.0.0.1:{port}; server_name web.example;
             location / {{
               proxy_pass http://upstream; proxy_http_version 1.1; proxy_set_header Connection \"\";
               proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;
               proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
             }}
           }}
         }}"
    );
    std::fs::write(format!("{folder}/nginx.conf"), config).expect("our own folder");
    let process = Command::new("/usr/sbin/nginx")
        .args(["-p", &folder.to_string(), "-c", &format!("{folder}/nginx.conf")])
        .spawn()
        .expect("nginx starts (apt-get install nginx-light)");
    let core = cores(0);
    sched_setaffinity(Pid::from_raw(process.id().cast_signed()), &core).expect("a child of ours");
    let proxy = Proxy { name: "nginx", process, address: SocketAddr::from(([127, 0, 0, 1], port)) };
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(proxy.address).await.is_err() {
        assert!(Instant::now() < until, "nginx does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy
}

/// The figures of one round.
#[derive(Clone, Copy)]
struct Round {
    requests_per_second: f64,
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Round {
    /// The median of each figure.
    fn median(rounds: Vec<Round>) -> Round {
        let middle = |figure: fn(&Round) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Round {
            requests_per_second: middle(|round| round.requests_per_second),
            cpu_us: middle(|round| round.cpu_us),
            p50_ms: middle(|round| round.p50_ms),
            p99_ms: middle(|round| round.p99_ms),
        }
    }
}

async fn measure(proxy: &Proxy, path: &'static str, clients: usize) -> Round {
    let (cpu_before, began) = (cpu(proxy.process.id()), Instant::now());
    let mut latencies = load(proxy.address, path, clients, ROUND).await;
    let (cpu, took) = (cpu(proxy.process.id()) - cpu_before, began.elapsed());
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let requests = latencies.len() as f64;
    Round {
        requests_per_second: requests / took.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / requests,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
    }
}

/// Sends requests on every connection, one after another; returns how long each response took.
async fn load(address: SocketAddr, path: &'static str, clients: usize, duration: Duration) -> Vec<Duration> {
    let until = Instant::now() + duration;
    let clients = (0..clients).map(|_| tokio::spawn(client(address, path, until)));
    let latencies = futures::future::try_join_all(clients).await.expect("no client panics");
    latencies.into_iter().flatten().collect()
}

async fn client(address: SocketAddr, path: &str, until: Instant) -> Vec<Duration> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: web.example\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
    );
    let mut socket = TcpStream::connect(address).await.expect("the proxy listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let (mut buffer, mut latencies) = (vec![0; 256 * 1024], Vec::new());
    while Instant::now() < until {
        let sent = Instant::now();
        socket.write_all(request.as_bytes()).await.expect("the proxy reads");
        let mut filled = 0;
        let (head, body) = loop {
            let count = socket.read(&mut buffer[filled..]).await.expect("the proxy responds");
            assert!(count > 0, "the proxy closed the connection");
            filled += count;
            if let Some(end) = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break (end + 4, filled - end - 4);
            }
        };
        let head = std::str::from_utf8(&buffer[..head]).expect("text").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
        let mut left = length.expect("a length").parse::<usize>().expect("a number") - body;
        while left > 0 {
            let count = socket.read(&mut buffer).await.expect("the proxy responds");
            assert!(count > 0, "the proxy closed the connection");
            left -= count;
        }
        latencies.push(sent.elapsed());
    }
    latencies
}

/// The upstream, with as little work as possible.
async fn serve_upstream(listener: TcpListener) {
    let response = |bytes: usize| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {bytes}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; bytes]].concat()
    };
    let responses: &'static [Vec<u8>; 2] =
        Box::leak(Box::new([response(SMALL_BYTES), response(LARGE_BYTES)]));
    loop {
        let (mut socket, _) = listener.accept().await.expect("the listener lasts");
        socket.set_nodelay(true).expect("a TCP socket");
        tokio::spawn(async move {
            let (mut buffer, mut filled) = ([0; 4096], 0);
            loop {
                match socket.read(&mut buffer[filled..]).await {
                    Ok(count @ 1..) => filled += count,
                    Ok(0) | Err(_) => return,
                }
                if buffer[..filled].ends_with(b"\r\n\r\n") {
                    filled = 0;
                    let response = &responses[usize::from(buffer.starts_with(b"GET /large"))];
                    if socket.write_all(response).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// CPU time of all threads.
fn cpu(process: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let nanoseconds = tasks.map(|task| {
        let stat = std::fs::read_to_string(task.expect("a task").path().join("schedstat")).expect("it runs");
        stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).expect("a number")
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

fn cores(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core).expect("a small number");
    set
}

/// On a host with one core everything shares it, and the figures mean less.
fn pin_to_core(core: usize) {
    if let Err(error) = sched_setaffinity(Pid::from_raw(0), &cores(core)) {
        eprintln!("not pinned to core {core}: {error}");
    }
}
