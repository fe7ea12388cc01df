mod past;
mod present;
