//! The rules of the house as tests: who may know whom, and that every room says what it is.

mod dashboards;
mod layers;
mod pages;
