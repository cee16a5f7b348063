//! Events that differ from pass to pass, and the log source that the peer's routing asks for.

use serde_json::Value;

/// A small generator, so that runs are alike.
pub(in crate::commands::bench) struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub(in crate::commands::bench) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Varies what differs from machine to machine: process ids, folders of users and programs, hashes,
/// users, the ends of command lines.
pub(in crate::commands::bench) fn vary(event: &mut Value, random: &mut Random) {
    let Some(members) = event.as_object_mut() else { return };
    for (name, value) in members.iter_mut() {
        let number = random.next();
        if name.ends_with("ProcessId") || name == "ExecutionProcessID" || name == "ProcessID" {
            *value = match value {
                Value::String(text) if text.starts_with("0x") => {
                    format!("0x{:x}", number % 65_536).into()
                }
                Value::String(_) => (number % 65_536).to_string().into(),
                _ => (number % 65_536).into(),
            };
            continue;
        }
        let Value::String(text) = value else { continue };
        if name == "Hashes" {
            let digits: String = text
                .chars()
                .map(|c| {
                    if c.is_ascii_digit() {
                        char::from(b'0' + (random.next() % 10) as u8)
                    } else {
                        c
                    }
                })
                .collect();
            *text = digits;
        } else if name.ends_with("CommandLine") || name == "ScriptBlockText" || name == "Message" {
            text.push_str(&format!(" {number:x}"));
        } else if name.ends_with("UserName") || name == "User" {
            text.push_str(&format!("{:x}", number % 4_096));
        } else if name.ends_with("Guid") || name.ends_with("GUID") {
            *text = format!("{{{number:032x}}}");
        } else if name.ends_with("Image")
            || name.contains("Name")
            || name == "ImageLoaded"
            || name == "TargetObject"
            || name == "CallTrace"
        {
            // The folder before the last name, where it is none that rules name.
            if let Some(at) = text.rfind('\\')
                && text.len() > 12
                && !text.to_ascii_lowercase().contains("system32")
            {
                text.insert_str(at, &format!("\\{:x}", number % 100_000));
            }
        }
    }
}

/// Names the log source of an event for the peer, as the table of log sources has it.
pub(super) fn label(event: &mut Value) {
    let channel = event.get("Channel").and_then(Value::as_str).unwrap_or_default().to_owned();
    let id = event.get("EventID").and_then(Value::as_u64).unwrap_or_default();
    let (service, category) = match channel.as_str() {
        "Microsoft-Windows-Sysmon/Operational" => (
            "sysmon",
            match id {
                1 => "process_creation",
                2 => "file_change",
                3 => "network_connection",
                4 | 16 => "sysmon_status",
                5 => "process_termination",
                6 => "driver_load",
                7 => "image_load",
                8 => "create_remote_thread",
                9 => "raw_access_thread",
                10 => "process_access",
                11 => "file_event",
                12 => "registry_event",
                13 => "registry_set",
                14 => "registry_rename",
                15 => "create_stream_hash",
                17 | 18 => "pipe_created",
                19..=21 => "wmi_event",
                22 => "dns_query",
                23 | 26 => "file_delete",
                _ => "other",
            },
        ),
        "Security" => ("security", "other"),
        "System" => ("system", "other"),
        "Application" => ("application", "other"),
        "Windows PowerShell" => (
            "powershell-classic",
            match id {
                400 => "ps_classic_start",
                600 => "ps_classic_provider_start",
                _ => "other",
            },
        ),
        "Microsoft-Windows-PowerShell/Operational" => (
            "powershell",
            match id {
                4_103 => "ps_module",
                4_104 => "ps_script",
                _ => "other",
            },
        ),
        "Microsoft-Windows-WMI-Activity/Operational" => ("wmi", "other"),
        "Microsoft-Windows-TaskScheduler/Operational" => ("taskscheduler", "other"),
        "Microsoft-Windows-Bits-Client/Operational" => ("bits-client", "other"),
        _ => ("other", "other"),
    };
    if let Some(members) = event.as_object_mut() {
        members.insert("product".into(), "windows".into());
        members.insert("service".into(), service.into());
        members.insert("category".into(), category.into());
    }
}
