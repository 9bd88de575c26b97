//! The demo's VM: its definition, and the script that makes it serve a page that it can change itself.

use std::path::{Path, PathBuf};

use contract::DomainName;

use super::super::exit::{CliError, CliExitCode};

/// The text of its page.
pub(super) const GREETING: &str = "created by the demo";
/// The variable that marks VMs of the demo.
pub(super) const MARK: &str = "LOAM_DEMO";
/// Its domain.
pub(super) const DOMAIN: &str = "web.example";
/// The path that appends a note to the page.
pub(super) const NOTE_PATH: &str = "/cgi-bin/note";

/// Serves `/srv/www/index.html`, and appends what is posted to `/cgi-bin/note`: with systemd and Python where they are
/// installed, else with busybox. Either way it is served again after every boot.
const INSTALL: &str = r##"#!/bin/sh
set -eu
mkdir -p /srv/www/cgi-bin
printf '<!doctype html>\n<title>web</title>\n<h1>%s</h1>\n' "$GREETING" > /srv/www/index.html
if command -v systemctl >/dev/null && command -v python3 >/dev/null; then
    cat > /usr/local/lib/page.py <<'PY'
import http.server, os
PAGE = "/srv/www/index.html"
class Page(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(open(PAGE, "rb").read())
    def do_POST(self):
        note = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with open(PAGE, "ab") as page:
            page.write(b"<p>" + note + b"\n")
            page.flush()
            os.fsync(page.fileno())
        self.answer(b"noted\n")
http.server.ThreadingHTTPServer(("", 80), Page).serve_forever()
PY
    cat > /etc/systemd/system/page.service <<'UNIT'
[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/page.py
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --now page.service
else
    cat > /srv/www/cgi-bin/note <<'CGI'
#!/bin/sh
printf '<p>%s\n' "$(head -c "$CONTENT_LENGTH")" >> /srv/www/index.html
sync
printf 'Content-Type: text/plain\r\n\r\nnoted\n'
CGI
    chmod 755 /srv/www/cgi-bin/note
    printf '#!/bin/sh\nexec busybox httpd -p 80 -h /srv/www\n' > /etc/rc.local
    chmod 755 /etc/rc.local
    /etc/rc.local
fi
sync
"##;

/// Writes `web.toml` and its script into a folder.
pub(super) fn write(folder: &Path, vm: &str, seed: &str) -> Result<PathBuf, CliError> {
    let domain = DomainName::new(DOMAIN).expect("a fixed name that fits");
    let file = folder.join("web.toml");
    let text = format!(
        "name      = \"{vm}\"\nseed      = \"{seed}\"\ncpu_count = 1\nram_size  = \"768M\"\n\
         disk_size = \"4G\"\ndomains   = [\"{domain}\"]\ninstall   = [\"install.sh\"]\n\n\
         [env]\nGREETING  = \"{GREETING}\"\n{MARK} = \"1\"\n"
    );
    for (path, text) in [(&file, text.as_str()), (&folder.join("install.sh"), INSTALL)] {
        std::fs::write(path, text).map_err(|error| {
            CliError::new(CliExitCode::Failed, format!("writing {}: {error}", path.display()))
        })?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::vm;

    #[test]
    fn the_definition_is_one_that_loam_reads_and_has_the_mark() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = write(folder.path(), "web", "loam-demo").expect("written");
        let definition = vm::read(&file).expect("read");
        assert_eq!(definition.env[MARK], "1");
        assert_eq!(definition.domains[0].domain.as_str(), DOMAIN);
        assert!(definition.install[0].text.starts_with("#!/bin/sh"));
    }
}
