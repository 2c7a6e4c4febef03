mod api;
mod faults;
mod image;
mod names;
