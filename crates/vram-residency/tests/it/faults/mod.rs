//! Whatever fails, at whatever call: the state is as before, or the error says what is not. Each
//! operation is a row of one table: a set-up, the operation, and what must hold afterwards. A row is
//! swept: every call of every kind to a device fails once, in every way. The picture of what is
//! resident, parked and counted is compared for all of them: see `vram_test_rigs::Row`.

mod blocks;
mod devices;
mod images;
mod links;
mod moving;
mod repair;
mod restoring;
mod sealing;
mod single;
