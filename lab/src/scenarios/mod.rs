//! The scenarios, one file each or one for a family. `stage.rs` has what many begin and end with.

pub mod control;
pub mod convey;
pub mod crash;
pub mod drill;
pub mod etcd;
pub mod home_again;
pub mod join;
pub mod monitor_gone;
pub mod orderly;
pub mod own_clients;
pub mod own_mounts;
pub mod own_restart;
pub mod pacemaker;
pub mod pacemaker_doctor;
pub mod pacemaker_store;
pub mod package;
pub mod planned_move;
pub mod refused;
pub mod selftest;
mod stage;
pub mod stock_rival;
pub mod storm;
pub mod systemd;
pub mod three_servers;
pub mod twice;
pub mod two_services;
pub mod window;
