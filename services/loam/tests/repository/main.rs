//! What `loam repository` promises, with the program that a person runs, on a store in a folder.

mod chunkers;
mod clean;
mod closed;
mod compressed;
mod dry;
mod dumped;
mod files;
mod interrupted;
mod keys;
mod place;
mod refused;
mod round;
mod served;
mod several;
