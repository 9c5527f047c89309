//! A failure at any call: the state is as before, or the error says what changed. Each operation is
//! a row of one table: a set-up, the operation, and the conditions afterwards. A sweep of a row
//! lets every call of every kind to a device fail once, in every way. For all rows it compares a
//! picture of what is resident, parked and counted: see `vram_test_rigs::Row`.

mod blocks;
mod devices;
mod images;
mod kernels;
mod links;
mod moving;
mod repair;
mod restoring;
mod sealing;
mod single;
