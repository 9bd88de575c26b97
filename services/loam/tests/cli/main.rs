//! What every command promises to people and programs, with the program that a person runs, on a bus whose services give
//! fixed answers.

mod closed;
mod completion;
mod exec;
mod installation;
#[allow(dead_code, reason = "the tests of permissions need all of it")]
#[path = "../permissions/raw_client.rs"]
mod raw_client;
mod row_keys;
mod shown;
#[allow(dead_code, reason = "the tests of permissions need all of it")]
#[path = "../permissions/test_bus.rs"]
mod test_bus;
mod written;
