//! Rules about the sources as tests: which crate may use which, what the documents and the container image must hold.

mod build_context;
mod dashboards;
mod layers;
mod pages;
mod sources;
mod spans;
mod units;
mod words;
