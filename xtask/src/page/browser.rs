//! Chromium, driven through `chromedriver` by the protocol of `WebDriver`.
//!
//! # Source
//!
//! <https://www.w3.org/TR/webdriver2/>; the commands `goog/cdp/execute` and `se/log` are chromedriver's own.

use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// The longest that one command may take.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// A running browser. Dropping it ends the browser and its driver.
#[derive(Debug)]
pub(super) struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts a browser without a window; `None` if there is no `chromedriver`.
    pub(super) fn start() -> Result<Option<Self>, String> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut driver) = command.spawn() else { return Ok(None) };
        let port = driver.stdout.take().and_then(|stdout| {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let mut ports = lines.filter_map(|line| {
                let (_, rest) = line.split_once("started successfully on port ")?;
                rest.trim_end_matches('.').parse().ok()
            });
            ports.next()
        });
        let mut browser = Self { driver, port: port.unwrap_or_default(), session: String::new() };
        if port.is_none() {
            return Err("chromedriver does not say on which port it listens".to_owned());
        }
        // `--no-sandbox`: root, as in a container, can have none; the pages are our own.
        let options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--hide-scrollbars"]});
        let answer = browser.call(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome", "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }}}),
        )?;
        let session = answer.get("sessionId").and_then(Value::as_str);
        session.ok_or("chromedriver began no session")?.clone_into(&mut browser.session);
        Ok(Some(browser))
    }

    /// Loads a page.
    pub(super) fn go(&self, url: &str) -> Result<(), String> {
        self.command("url", &json!({ "url": url })).map(drop)
    }

    /// The value of a function's body in JavaScript.
    pub(super) fn run(&self, script: &str) -> Result<Value, String> {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// A command of the browser's developer tools.
    pub(super) fn tool(&self, name: &str, params: &Value) -> Result<Value, String> {
        self.command("goog/cdp/execute", &json!({"cmd": name, "params": params}))
    }

    /// Presses keys, one after the other, as a person does.
    pub(super) fn press(&self, keys: &[&str]) -> Result<(), String> {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})))
            .collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.command("actions", &json!({ "actions": [keyboard] })).map(drop)
    }

    /// The entries of a log since it was last asked for: `browser`, `performance`.
    pub(super) fn log(&self, kind: &str) -> Result<Vec<Value>, String> {
        let entries = self.command("se/log", &json!({ "type": kind }))?;
        Ok(entries.as_array().cloned().unwrap_or_default())
    }

    fn command(&self, name: &str, body: &Value) -> Result<Value, String> {
        self.call("POST", &format!("/session/{}/{name}", self.session), body)
    }

    /// Sends a request; the `value` of its answer.
    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let failed = |error| format!("chromedriver, {method} {path}: {error}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(failed)?;
        let body = body.to_string();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .map_err(failed)?;
        let mut answer = BufReader::new(stream);
        let mut len = 0;
        loop {
            let mut line = String::new();
            if answer.read_line(&mut line).map_err(failed)? <= 2 {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                len = value.trim().parse().map_err(|error| format!("{line}: {error}"))?;
            }
        }
        let mut text = String::new();
        answer.take(len).read_to_string(&mut text).map_err(failed)?;
        let mut answer: Value =
            serde_json::from_str(&text).map_err(|error| format!("{path}: {error}: {text}"))?;
        let value = answer.get_mut("value").map(Value::take).unwrap_or_default();
        match value.get("error") {
            Some(error) => {
                let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
                Err(format!("{path}: {error}: {message}"))
            }
            None => Ok(value),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.call("DELETE", &format!("/session/{}", self.session), &json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The bytes of a text in base 64 (RFC 4648), as pictures come.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for digit in text.bytes().take_while(|&byte| byte != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit.checked_sub(b'A'),
            b'a'..=b'z' => digit.checked_sub(b'a')?.checked_add(26),
            b'0'..=b'9' => digit.checked_sub(b'0')?.checked_add(52),
            b'+' => Some(62),
            b'/' => Some(63),
            _ => None,
        }?;
        bits = (bits << 6) | u32::from(value);
        held = held.checked_add(6)?;
        if held >= 8 {
            held = held.checked_sub(8)?;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
        bits &= 0xffff;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_is_read() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(from_base64("Zm9*"), None);
    }
}
