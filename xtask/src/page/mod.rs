//! `cargo xtask page`: the page that people look at, tried in Chromium.
//!
//! Pictures go to `target/page`. Without `chromedriver` the command prints NOT RUN and succeeds.

mod browser;
mod checks;
mod server;

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use self::browser::Browser;
use crate::{shell, workspace};

/// Runs all checks, also after one has failed.
pub(crate) fn run() -> Result<(), String> {
    let Some(browser) = Browser::start()? else {
        println!("NOT RUN: no chromedriver; install it with `apt-get install chromium-driver`");
        return Ok(());
    };
    shell::cargo(&["build", "-p", "vram-view", "--example", "page"]).run()?;
    let target = workspace::target_folder()?;
    let program = target.join("debug").join("examples").join("page");
    let folder = target.join("page");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut trial = Trial { browser, program, folder, failures: Vec::new() };
    checks::of_files(&mut trial)?;
    checks::of_keyboard(&mut trial)?;
    checks::of_many(&mut trial)?;
    checks::of_the_live_form(&mut trial)?;
    println!("pictures: {}", trial.folder.display());
    match trial.failures.as_slice() {
        [] => Ok(()),
        failures => Err(format!("the page:\n  {}", failures.join("\n  "))),
    }
}

/// One run of the command.
struct Trial {
    browser: Browser,
    /// The example of vram-view that makes pages.
    program: PathBuf,
    folder: PathBuf,
    failures: Vec<String>,
}

impl Trial {
    /// Writes a page with these options of the example.
    fn page(&self, name: &str, options: &[&str]) -> Result<String, String> {
        let path = self.folder.join(name);
        let (program, text) = (self.program.display().to_string(), path.display().to_string());
        shell::program(&program, options).arg(text).run()?;
        let path = fs::canonicalize(&path).map_err(|error| error.to_string())?;
        Ok(format!("file://{}", path.display()))
    }

    /// Sets the width of the window, and the theme that the system asks for.
    fn look(&self, width: u32, theme: &str) -> Result<(), String> {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.browser.tool("Emulation.setDeviceMetricsOverride", &size)?;
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.browser.tool("Emulation.setEmulatedMedia", &media).map(drop)
    }

    /// Notes a failure.
    fn expect(&mut self, holds: bool, what: impl Into<String>) {
        let what = what.into();
        println!("  {} {what}", if holds { "ok    " } else { "FAILED" });
        if !holds {
            self.failures.push(what);
        }
    }

    /// Waits until an expression of JavaScript is true, for ten seconds at most.
    fn wait(&mut self, expression: &str, what: &str) -> Result<(), String> {
        let began = Instant::now();
        let script = format!("return Boolean({expression})");
        let mut holds = false;
        while !holds && began.elapsed() < Duration::from_secs(10) {
            holds = self.browser.run(&script)? == true;
            thread::sleep(Duration::from_millis(100));
        }
        self.expect(holds, what);
        Ok(())
    }

    /// No error in the console, and no request but to `origins`.
    fn quiet(&mut self, name: &str, origins: &[&str]) -> Result<(), String> {
        for entry in self.browser.log("browser")? {
            if entry.get("level").is_some_and(|level| level == "SEVERE" || level == "WARNING") {
                self.expect(false, format!("{name}: the console says {entry}"));
            }
        }
        let (mut asked, mut elsewhere) = (0_u32, Vec::new());
        for entry in self.browser.log("performance")? {
            let message = entry.get("message").and_then(Value::as_str).unwrap_or_default();
            let message: Value = serde_json::from_str(message).unwrap_or_default();
            if message
                .pointer("/message/method")
                .is_some_and(|it| it == "Network.requestWillBeSent")
            {
                asked = asked.saturating_add(1);
                let url = message.pointer("/message/params/request/url").and_then(Value::as_str);
                let url = url.unwrap_or_default();
                if !origins.iter().any(|origin| url.starts_with(origin)) {
                    elsewhere.push(url.to_owned());
                }
            }
        }
        // Also the page itself is asked for: without that, the log shows nothing at all.
        self.expect(asked > 0, format!("{name}: the log of requests is read, {asked} in it"));
        self.expect(elsewhere.is_empty(), format!("{name}: no request leaves {elsewhere:?}"));
        Ok(())
    }

    /// A picture of the whole page.
    fn picture(&self, name: &str) -> Result<(), String> {
        let number =
            |script: &str| self.browser.run(script).map(|value| value.as_u64().unwrap_or(900));
        let width = number("return window.innerWidth")?;
        let height = number("return document.documentElement.scrollHeight")?;
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height.min(6000), "scale": 1});
        let taken = self.browser.tool(
            "Page.captureScreenshot",
            &json!({"captureBeyondViewport": true, "clip": clip}),
        )?;
        let data = taken.get("data").and_then(Value::as_str).unwrap_or_default();
        let bytes = browser::from_base64(data).ok_or("the picture is not in base 64")?;
        write(&self.folder.join(format!("{name}.png")), &bytes)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}
