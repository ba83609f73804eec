//! System calls without a safe wrapper. The only file of the workspace that may say unsafe.
#![allow(unsafe_code)]
