//! The page in a real browser: Chromium, headless, told what to do over its own pipe.
//!
//! The browser speaks JSON with a zero byte behind each message on its descriptors 3 and 4 (two FIFOs here). Each wait is
//! for a state of the page, with a patience that only a broken page uses up.

use super::*;
use std::{
    fs::File,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

/// How long a state of the page may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page.
struct Browser {
    process: Child,
    to: File,
    from: File,
    heard: Vec<u8>,
    session: String,
    number: u32,
    folder: PathBuf,
}

impl Browser {
    fn open(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("endpoint-{}-{name}-browser", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let [to, from] = ["to", "from"].map(|pipe| folder.join(pipe));
        for pipe in [&to, &from] {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        let script = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
            --ignore-certificate-errors --user-data-dir=\"$0/profile\" --remote-debugging-pipe about:blank 3<\"$0/to\" 4>\"$0/from\"";
        let process = Command::new("sh")
            .args(["-c", script])
            .arg(&folder)
            .env("HOME", &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = File::options().write(true).open(to).unwrap();
        let from = File::open(from).unwrap();
        Self { process, to, from, heard: Vec::new(), session: String::new(), number: 0, folder }
    }

    /// Goes to an address in a window of this width.
    fn visit(&mut self, url: &str, width: u32, dark: bool) {
        let answer = self.call("Target.createTarget", r#"{"url":"about:blank"}"#);
        let target = text_after(&answer, "targetId");
        let answer = self.call("Target.attachToTarget", &format!(r#"{{"targetId":"{target}","flatten":true}}"#));
        self.session = text_after(&answer, "sessionId");
        let scheme = if dark { "dark" } else { "light" };
        for (method, parameters) in [
            ("Log.enable", "{}".to_owned()),
            ("Page.enable", "{}".into()),
            (
                "Emulation.setDeviceMetricsOverride",
                format!(r#"{{"width":{width},"height":800,"deviceScaleFactor":1,"mobile":true}}"#),
            ),
            (
                "Emulation.setEmulatedMedia",
                format!(r#"{{"features":[{{"name":"prefers-color-scheme","value":"{scheme}"}}]}}"#),
            ),
            ("Page.navigate", format!(r#"{{"url":"{url}"}}"#)),
        ] {
            self.call(method, &parameters);
        }
    }

    /// Asks the browser; its answer.
    fn call(&mut self, method: &str, parameters: &str) -> String {
        self.number += 1;
        let number = self.number;
        let session = match self.session.as_str() {
            "" => String::new(),
            session => format!(r#","sessionId":"{session}""#),
        };
        let request = format!("{{\"id\":{number},\"method\":\"{method}\",\"params\":{parameters}{session}}}\0");
        self.to.write_all(request.as_bytes()).unwrap();
        loop {
            while let Some(end) = self.heard.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.heard.drain(..=end).collect();
                let message = String::from_utf8_lossy(&message[..end]).into_owned();
                // What the browser has to complain about: a blocked file, an error of the script.
                assert!(
                    !message.contains("\"Log.entryAdded\"") || message.contains("\"source\":\"network\""),
                    "{message}"
                );
                if message.starts_with(&format!("{{\"id\":{number},")) {
                    assert!(!message.contains("exceptionDetails"), "{message}");
                    return message;
                }
            }
            let mut chunk = [0; 65536];
            let count = self.from.read(&mut chunk).unwrap();
            assert!(count > 0, "the browser ended; is chromium installed?");
            self.heard.extend_from_slice(&chunk[..count]);
        }
    }

    /// What an expression is, as text; nothing while the page is not there.
    fn eval(&mut self, expression: &str) -> String {
        let guarded = format!("(() => {{ try {{ return {expression} }} catch {{ return '' }} }})()");
        let quoted = json::Escaped(&guarded);
        let answer = self.call(
            "Runtime.evaluate",
            &format!(r#"{{"expression":"String({quoted})","returnByValue":true,"userGesture":true}}"#),
        );
        text_after(&answer, "value")
    }

    /// Waits until an expression is this.
    fn until(&mut self, expression: &str, wanted: &str) {
        let late = Instant::now() + PATIENCE;
        loop {
            let is = self.eval(expression);
            if is == wanted {
                return;
            }
            assert!(Instant::now() < late, "{expression} is `{is}`, not `{wanted}`");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn click(&mut self, selector: &str) {
        self.eval(&format!("document.querySelector('{selector}').click()"));
    }

    /// Leaves a picture where `SWITCHBACK_SCREENSHOTS` says, for people who want to see it.
    fn picture(&mut self, name: &str) {
        let Ok(folder) = std::env::var("SWITCHBACK_SCREENSHOTS") else { return };
        let answer = self.call("Page.captureScreenshot", r#"{"captureBeyondViewport":true}"#);
        std::fs::write(format!("{folder}/{name}.base64"), text_after(&answer, "data")).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The text behind a key, as it stands in JSON.
fn text_after(message: &str, key: &str) -> String {
    let from =
        message.find(&format!("\"{key}\":\"")).unwrap_or_else(|| panic!("no {key} in {message}")) + key.len() + 4;
    message[from..].split('"').next().unwrap().to_owned()
}

/// What `GET /status` says of a device; its candidate while a rollback is tried.
fn status(rolling: bool) -> String {
    let candidate = if rolling { r#""candidate":"0","# } else { "" };
    format!(
        r#"{{"status":"READY","revision":"locals/new-page","committed":"locals/new-page",{candidate}"previous":"0",
        "degraded":false,"now_ms":7260000,"ready_ms":4300,"memory":{{"total_kb":65536,"available_kb":20480}},
        "update":{{"revision":"locals/bad","from":"locals/new-page","kind":"in-place","trial":false,"tries":1,
        "status":"ERROR","status-msg":"Status goal not reached","progress":100,"retries":0,"code":"SB1401",
        "reason":"web: status goal not reached in time"}},
        "not_survived":["a candidate whose kernel hangs: each try needs a power cycle"],
        "containers":[{{"name":"network","status":"STARTED","pid":80,"started_ms":4000,"restarts":0}},
        {{"name":"<b>web</b>","status":"STARTED","pid":81,"started_ms":7100000,"restarts":2}},
        {{"name":"counter","status":"STOPPED","restarts":5,"code":"SB1306","reason":"a container exited"}}]}}"#
    )
}

/// A device whose rollback can be refused.
fn device_with_page(name: &str, access: Access) -> (SocketAddr, mpsc::Receiver<Vec<u8>>, Arc<Home>, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(false));
    let (mut rolling, refusal) = (false, refuses.clone());
    let (address, seen, home) = device_for(name, access, move |line| match line {
        "POST /rollback HTTP/1.1" if refusal.load(Ordering::SeqCst) => {
            said(503, r#"{"Error":"another update is running","code":"SB1402","key":"","at":0}"#)
        }
        "POST /rollback HTTP/1.1" => {
            rolling = true;
            said(200, "")
        }
        _ => said(200, &status(rolling)),
    });
    (address, seen, home, refuses)
}

const REVISION: &str = "document.querySelector('#revision').textContent";

#[test]
fn the_page_shows_the_device_and_rolls_it_back_when_asked_twice() {
    let (address, seen, _home, refuses) = device_with_page("page-open", Access::Open);
    let rollbacks = || first_lines(&seen).iter().filter(|line| line.starts_with("POST /rollback")).count();
    let mut browser = Browser::open("page-open");
    browser.visit(&format!("http://{address}/"), 360, false);
    browser.until(REVISION, "locals/new-page");
    browser.picture("phone");
    for (what, wanted) in [
        ("document.querySelector('#containers').rows.length", "3"),
        ("document.querySelector('#containers').rows[1].cells[0].textContent", "<b>web</b>"),
        ("document.querySelector('#update').textContent.includes('SB1401')", "true"),
        ("document.querySelector('#status').textContent", "READY"),
        ("document.querySelector('#danger').hidden", "false"),
        ("document.querySelector('#pair').hidden", "true"),
        ("document.documentElement.scrollWidth <= 360", "true"),
        ("performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))", "true"),
        ("[...document.querySelectorAll('button')].every(b => b.textContent.trim())", "true"),
        ("document.querySelector('#back').getBoundingClientRect().height >= 44", "true"),
    ] {
        browser.until(what, wanted);
    }
    browser.click("#back");
    browser.until("document.querySelector('#sure').open", "true");
    browser.picture("sure");
    browser.click("#sure button[value=no]");
    browser.until("document.querySelector('#sure').open", "false");
    assert_eq!(rollbacks(), 0, "not without a second click");
    refuses.store(true, Ordering::SeqCst);
    browser.click("#back");
    browser.click("#sure button[value=yes]");
    browser.until("document.querySelector('#trouble').textContent", "SB1402: another update is running");
    assert_eq!(rollbacks(), 1);
    refuses.store(false, Ordering::SeqCst);
    browser.until("document.querySelector('#back').disabled", "false");
    browser.click("#back");
    browser.click("#sure button[value=yes]");
    browser.until("document.querySelector('#committed').textContent.startsWith('on trial')", "true");
    browser.until("document.querySelector('#back').disabled", "true");
    assert_eq!(rollbacks(), 1);
    browser.visit(&format!("http://{address}/"), 1000, true);
    browser.until(REVISION, "locals/new-page");
    browser.picture("dark");
}

#[test]
fn a_browser_is_paired_by_the_code_of_the_device() {
    let access = if cfg!(feature = "tls") { Access::Paired } else { Access::PairedPlain };
    let (address, _seen, home, _) = device_with_page("page-paired", access);
    let mut browser = Browser::open("page-paired");
    browser.visit(&format!("http://{address}/"), 360, true);
    browser.until("Boolean(document.querySelector('#pair')) && !document.querySelector('#pair').hidden", "true");
    browser.until("location.protocol", if cfg!(feature = "tls") { "https:" } else { "http:" });
    browser.until("document.querySelector('#danger').hidden", if cfg!(feature = "tls") { "true" } else { "false" });
    browser.until("document.querySelector('#compare').hidden", if cfg!(feature = "tls") { "false" } else { "true" });
    browser.picture("pair");
    let enter = |browser: &mut Browser, code: &str| {
        browser.eval(&format!("document.querySelector('#code').value = '{code}'"));
        browser.click("#pair button");
    };
    enter(&mut browser, "0000-0000");
    browser.until("document.querySelector('#trouble').textContent.startsWith('SB1518')", "true");
    let (_, text) = visit(&home, "POST /endpoint/pair");
    enter(&mut browser, &member(&text, "code"));
    browser.until(REVISION, "locals/new-page");
    browser.until("document.querySelector('#pair').hidden", "true");
    browser.eval("location.reload()");
    browser.until(REVISION, "locals/new-page");
    assert!(visit(&home, "DELETE /endpoint/tokens/all").0 == 200);
    browser.until("document.querySelector('#pair').hidden", "false");
    browser.until("document.querySelector('#trouble').textContent.startsWith('SB1517')", "true");
}
