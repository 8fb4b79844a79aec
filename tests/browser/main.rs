//! The console in a real browser: the programs on loopback, and Debian's Chromium, headless, driven
//! through `chromedriver`. `make browser` runs all of it; one short journey is in `make test`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here fails the test")]

mod api;
mod browser;
mod forgery;
mod hostile;
mod journey;
mod lost;
mod managers;
mod pages;
mod postgres;
mod programs;
mod seed;
mod single_sign_on;
mod viewer;
mod webdriver;
mod without_scripts;
