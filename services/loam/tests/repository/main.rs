//! What `loam repository` promises, with the program that a person runs, on a store in a folder.

mod clean;
mod files;
mod interrupted;
mod keys;
mod place;
mod refused;
mod round;
mod served;
