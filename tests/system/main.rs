//! What Loam promises as a whole, shown on our own binaries, a real nats-server and real clients. Machines are
//! simulated but for the module `real`, which needs libvirt and runs inside `tests/harness/realm`.

mod backup_restore;
mod faults;
mod join;
mod people;
mod pressure;
mod provision;
mod real;
mod rows;
mod secrets;
mod signals;
mod store;
mod traces;
mod upgrade;
mod users;
