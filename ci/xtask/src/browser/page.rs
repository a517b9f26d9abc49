// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A page in the browser, and what a user does with it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pipe::Browser;

/// A page that is loaded.
pub(super) struct Page {
    browser: Browser,
    session: String,
}

/// Where an element is, pixels of the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// A point of the window, pixels.
pub(super) type Point = (f64, f64);

/// The time that charts show, milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range(f64, f64);

impl Range {
    pub(super) fn length(self) -> f64 {
        self.1 - self.0
    }
}

impl Place {
    /// The point at these shares of width and height.
    pub(super) fn at(self, x: f64, y: f64) -> Point {
        (self.x + self.width * x, self.y + self.height * y)
    }
}

impl Page {
    /// Opens an address, and waits until it is loaded.
    pub(super) fn open(mut browser: Browser, address: &str) -> Result<Self> {
        let target = browser.call(None, "Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call(None, "Target.attachToTarget", attach)?;
        let session = (session["sessionId"].as_str())
            .context("the browser gives no session")?
            .to_owned();
        let mut page = Self { browser, session };
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            page.call(domain, json!({}))?;
        }
        // What was told until now is of the empty page.
        page.browser.take_events();
        let reply = page.call("Page.navigate", json!({ "url": address }))?;
        ensure!(reply["errorText"].is_null(), "{address}: {reply}");
        page.browser.wait_for("Page.loadEventFired")?;
        page.check_errors()?;
        Ok(page)
    }

    /// Waits until it is loaded again.
    pub(super) fn loaded(&mut self) -> Result<()> {
        self.browser.wait_for("Page.loadEventFired")?;
        self.check_errors()
    }

    /// The value of an expression in the page.
    pub(super) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let mut reply = self.call("Runtime.evaluate", parameters)?;
        ensure!(
            reply["exceptionDetails"].is_null(),
            "{expression}: {}",
            reply["exceptionDetails"]
        );
        Ok(reply["result"]["value"].take())
    }

    /// The value of an expression that is a number.
    pub(super) fn number(&mut self, expression: &str) -> Result<f64> {
        let value = self.evaluate(expression)?;
        value
            .as_f64()
            .with_context(|| format!("{expression} is {value} and no number"))
    }

    /// The time that the timeline shows.
    pub(super) fn range(&mut self) -> Result<Range> {
        Ok(Range(
            self.number("report.range()[0]")?,
            self.number("report.range()[1]")?,
        ))
    }

    /// Scrolls to an element; where it is then.
    pub(super) fn place_of(&mut self, selector: &str) -> Result<Place> {
        let expression = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{ block: 'center' }}); \
             const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; }})()"
        );
        let place = self.evaluate(&expression)?;
        let number = |at: usize| {
            place[at]
                .as_f64()
                .with_context(|| format!("{selector} has no place: {place}"))
        };
        Ok(Place {
            x: number(0)?,
            y: number(1)?,
            width: number(2)?,
            height: number(3)?,
        })
    }

    /// Clicks on an element.
    pub(super) fn click(&mut self, selector: &str) -> Result<()> {
        let point = self.place_of(selector)?.at(0.5, 0.5);
        self.press(point, 1)
    }

    /// Clicks twice.
    pub(super) fn double_click(&mut self, point: Point) -> Result<()> {
        self.press(point, 1)?;
        self.press(point, 2)
    }

    /// Moves the pointer.
    pub(super) fn hover(&mut self, point: Point) -> Result<()> {
        self.mouse("mouseMoved", point, json!({}))
    }

    /// Drags from one point to another.
    pub(super) fn drag(&mut self, from: Point, to: Point) -> Result<()> {
        self.hover(from)?;
        self.mouse(
            "mousePressed",
            from,
            json!({ "button": "left", "buttons": 1, "clickCount": 1 }),
        )?;
        for step in 1..=4 {
            let part = f64::from(step) / 4.0;
            let between = (
                from.0 + (to.0 - from.0) * part,
                from.1 + (to.1 - from.1) * part,
            );
            self.mouse(
                "mouseMoved",
                between,
                json!({ "button": "left", "buttons": 1 }),
            )?;
        }
        self.mouse(
            "mouseReleased",
            to,
            json!({ "button": "left", "clickCount": 1 }),
        )
    }

    /// Turns the wheel; upwards is negative.
    pub(super) fn wheel(&mut self, point: Point, by: f64) -> Result<()> {
        self.mouse("mouseWheel", point, json!({ "deltaX": 0, "deltaY": by }))?;
        // Wheel events are delivered with the next frame, the others at once.
        self.frame()
    }

    /// A picture of the page from its top to the end of a part of it, WebP.
    pub(super) fn picture(&mut self, last: &str) -> Result<Vec<u8>> {
        let selector = serde_json::to_string(last)?;
        let size = format!(
            "(() => {{ scrollTo(0, 0); const to = document.querySelector({selector}).getBoundingClientRect().bottom; \
             return [document.documentElement.clientWidth, to]; }})()"
        );
        let size = self.evaluate(&size)?;
        self.frame()?;
        let parameters = json!({
            "format": "webp", "quality": 60, "captureBeyondViewport": true,
            "clip": { "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 0.7 },
        });
        let reply = self.call("Page.captureScreenshot", parameters)?;
        let text = reply["data"].as_str().context("there is no picture")?;
        decode(text).context("the picture is not what was expected")
    }

    /// An error if a script of the page has failed, or the browser complains about the page.
    pub(super) fn check_errors(&mut self) -> Result<()> {
        for event in self.browser.take_events() {
            let told = &event["params"];
            let is_error = match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => {
                    matches!(told["type"].as_str(), Some("error" | "assert"))
                }
                "Log.entryAdded" => told["entry"]["level"] == "error",
                _ => false,
            };
            ensure!(!is_error, "the page has an error: {told}");
        }
        Ok(())
    }

    /// Waits for two frames: what was done before the first is shown by the second.
    fn frame(&mut self) -> Result<()> {
        let expression = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))";
        let parameters = json!({ "expression": expression, "awaitPromise": true });
        self.call("Runtime.evaluate", parameters).map(drop)
    }

    fn press(&mut self, point: Point, count: u32) -> Result<()> {
        self.hover(point)?;
        let button = json!({ "button": "left", "clickCount": count });
        self.mouse("mousePressed", point, button.clone())?;
        self.mouse("mouseReleased", point, button)
    }

    fn mouse(&mut self, kind: &str, (x, y): Point, mut parameters: Value) -> Result<()> {
        for (name, value) in [("type", json!(kind)), ("x", json!(x)), ("y", json!(y))] {
            parameters[name] = value;
        }
        self.call("Input.dispatchMouseEvent", parameters).map(drop)
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.browser.call(Some(&self.session), method, parameters)
    }
}

/// Bytes from base64, as the browser writes pictures. `None` if the text is something else.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for &letter in group {
            bits = bits << 6 | u32::from(digit(letter)?);
        }
        // Four letters are three bytes; fewer letters at the end are fewer bytes.
        bits <<= 6 * (4 - group.len());
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn base64_is_understood() {
        assert_eq!(decode("aG1t").unwrap(), b"hmm");
        assert_eq!(decode("aG1tcA==").unwrap(), b"hmmp");
        assert_eq!(decode("aG1tcGE=").unwrap(), b"hmmpa");
        assert_eq!(decode("").unwrap(), b"");
        assert_eq!(decode("a*b="), None);
    }
}
