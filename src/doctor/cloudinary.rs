//! Cloudinary: whether it takes the key, has the upload preset, and knows where to tell of uploads.

use super::{Findings, Patient};
use crate::integrations::cloudinary::Cloudinary;
use crate::outgoing::problem::CallProblem;

pub(super) async fn check(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let Some(cloudinary) = Cloudinary::new(patient.config(), &patient.outgoing) else { return findings };
    match cloudinary.ping().await {
        Ok(()) => findings.ok(format!("the cloud {:?} takes the key", cloudinary.account().cloud_name)),
        Err(CallProblem::Status(status)) if status.as_u16() == 401 => findings.wrong(
            "the key is refused: users cannot upload, and nothing is deleted",
            "take cloud name, API key and API secret from the same page of Cloudinary's console",
        ),
        Err(problem @ CallProblem::Call(_)) => {
            findings.wrong(format!("it cannot be asked: {problem}"), "look whether this machine may reach it by HTTPS");
        }
        Err(problem) => findings.hint(problem.to_string(), "it is checked again by /health/integrations"),
    }
    if let Ok(false) = cloudinary.has_upload_preset().await {
        findings.wrong(
            "it does not have the upload preset: every upload is refused",
            "make it in Cloudinary's console, name another one (CLOUDINARY_UPLOAD_PRESET), or none (\"off\")",
        );
    }
    if patient.config().server.public_url.is_none() {
        let text = "uploads do not say where Cloudinary is to tell of them";
        findings.hint(text, "set HERALD_PUBLIC_URL, or the address in Cloudinary's console (docs/files.md)");
    }
    findings
}
