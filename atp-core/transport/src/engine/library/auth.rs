//! Opening a connection to a daemon that asks who we are (`virConnectOpenAuth`).
//!
//! The `virt` crate takes a plain function for the answers, which cannot know whose they are: here they travel with
//! the call.

use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr;

use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

use super::OpenFailure;
use crate::error::{ConnectError, ConnectStage, ErrorKind, LibvirtError};
use crate::host::Credentials;

/// The questions that can be answered.
const QUESTIONS: [sys::virConnectCredentialType; 3] =
    [sys::VIR_CRED_AUTHNAME, sys::VIR_CRED_PASSPHRASE, sys::VIR_CRED_NOECHOPROMPT];

/// Answers, ready to be given.
struct Answers {
    username: Option<CString>,
    password: Option<CString>,
}

impl Answers {
    fn of(credentials: &Credentials) -> Result<Self, String> {
        let text = |text: &str, what: &str| {
            CString::new(text).map_err(|_| format!("the {what} contains a NUL character"))
        };
        let username = credentials.username.as_deref().map(|name| text(name, "username")).transpose()?;
        let password = match &credentials.password {
            Some(source) => Some(text(source.get()?.reveal(), "password")?),
            None => None,
        };
        Ok(Answers { username, password })
    }
}

/// Opens a connection. Blocks. What the credentials do not have the library looks up in `auth.conf`: for that it has to be
/// told that questions are answered at all.
///
/// # Errors
/// The password cannot be had, or what libvirt says.
pub(super) fn open(uri: &str, credentials: &Credentials) -> Result<Connect, OpenFailure> {
    let refused = |reason: String| {
        let error = ConnectError::new(ErrorKind::AuthFailed, reason);
        OpenFailure::Ours(error.at(ConnectStage::Authenticate))
    };
    let mut answers = Answers::of(credentials).map_err(refused)?;
    let name = CString::new(uri).map_err(|_| refused("the URI contains a NUL character".to_owned()))?;
    let mut questions = QUESTIONS.map(|question| question as c_int);
    let mut auth = sys::virConnectAuth {
        credtype: questions.as_mut_ptr(),
        ncredtype: questions.len() as c_uint,
        cb: Some(answer),
        cbdata: ptr::from_mut(&mut answers).cast::<c_void>(),
    };
    // SAFETY: the name is a C string; `auth`, and what it points to, outlive the call, which is the only time at which
    // libvirt uses them.
    let connect = unsafe { sys::virConnectOpenAuth(name.as_ptr(), &mut auth, 0) };
    if connect.is_null() {
        return Err(OpenFailure::Libvirt(LibvirtError::from(&Error::last_error())));
    }
    // SAFETY: the connection is open, and its one reference passes to the value.
    Ok(unsafe { Connect::from_ptr(connect) })
}

/// Answers libvirt's questions; -1 if there is one without an answer.
///
/// # Safety
/// For libvirt to call, with the credentials of a [`sys::virConnectAuth`] whose `cbdata` is an [`Answers`].
unsafe extern "C" fn answer(
    questions: sys::virConnectCredentialPtr,
    count: c_uint,
    answers: *mut c_void,
) -> c_int {
    if questions.is_null() || answers.is_null() {
        return -1;
    }
    // SAFETY: it is what `open` gave to libvirt, and `open` has not returned yet.
    let answers = unsafe { &*answers.cast::<Answers>() };
    // SAFETY: libvirt passes so many credentials.
    let questions = unsafe { std::slice::from_raw_parts_mut(questions, count as usize) };
    for question in questions {
        let answer = match question.type_ as sys::virConnectCredentialType {
            sys::VIR_CRED_AUTHNAME => &answers.username,
            sys::VIR_CRED_PASSPHRASE | sys::VIR_CRED_NOECHOPROMPT => &answers.password,
            _ => &None,
        };
        let Some(answer) = answer else { return -1 };
        // SAFETY: the source is a C string. libvirt frees the copy with `free`.
        let copy = unsafe { libc::strdup(answer.as_ptr()) };
        if copy.is_null() {
            return -1;
        }
        question.result = copy;
        question.resultlen = answer.as_bytes().len() as c_uint;
    }
    0
}
