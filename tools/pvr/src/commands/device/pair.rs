//! `pvr device pair`.

use crate::{
    commands::Context,
    error::{During, Error, Kind, Result},
    http::{Access, Answer, Client, Content, Request, address},
    pinned::{Device, Paired, Pin, authority},
};
use clap::Parser;
use serde_json::json;
use std::{
    io::{BufRead, IsTerminal, Write},
    sync::Arc,
};
use ureq::http::Uri;

/// Pair with a device by the code that it shows
///
/// `pvcontrol endpoint pair` on the device's console shows a code that is good once, for five minutes. Most of it is the
/// device's certificate in short: nothing is said to a device that shows another one, so nobody on the way can listen or
/// take its place. The rest is the secret for which the device gives a token. Both are kept in devices.json of the
/// settings' folder, and every verb uses them from then on.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr device pair 192.168.1.7
  pvr device pair http://192.168.1.7:12368 --name workshop
  pvr device pair 127.0.0.1:12368 < code.txt")]
pub(in crate::commands) struct Args {
    /// The device: URL, or IP address
    #[arg(value_name = "DEVICE")]
    device: String,
    /// How the device lists us
    #[arg(long)]
    name: Option<String>,
    /// Pair with a device without TLS: whoever listens on the way reads the token and can use it
    #[arg(long)]
    plain: bool,
}

/// What a code says.
#[derive(PartialEq, Eq, Debug)]
struct Code {
    /// The beginning of the certificate's hash; none from a device without TLS.
    print: Option<[u8; 10]>,
    secret: String,
}

pub(in crate::commands) fn run(context: &Context, args: &Args) -> Result<()> {
    let uri = place(&args.device)?;
    let code = Code::read(&typed()?)?;
    let pin = match (&code.print, args.plain) {
        (Some(print), _) => Pin::new(print),
        (None, true) => {
            context.warn("WARNING: plain HTTP: whoever listens on the way reads the token and can use it");
            None
        }
        (None, false) => {
            let hint = "pair with --plain if nobody can listen on the way, such as over a cable of your own";
            return Err(Error::usage("this is the code of a device without TLS").hint(hint));
        }
    };
    let name = args.name.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    let answer = redeem(context, &uri, pin.clone(), &code.secret, &name)?;
    let value = answer.json();
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let (Some(token), Some(id), Some(device)) = (text("token"), text("id"), text("device")) else {
        return Err(Error::remote("the device's answer is not understood").hint("is it a Switchback device?"));
    };
    let fingerprint = pin.as_ref().and_then(|pin| pin.seen());
    let address = authority(&uri).unwrap_or_default();
    let mut paired = Paired::load(&context.config_dir)?;
    paired.put(Device {
        address: address.clone(),
        name: device.clone(),
        fingerprint: fingerprint.clone(),
        token,
        id,
    })?;
    context.say(json!({"device": device, "address": address, "fingerprint": fingerprint}), || {
        let how = match &fingerprint {
            Some(print) => format!("over TLS, certificate {}", &print[..20.min(print.len())]),
            None => "in plain HTTP".into(),
        };
        format!("Paired with {device} at {address}, {how}")
    });
    Ok(())
}

/// Gives the secret for a token.
fn redeem(context: &Context, uri: &Uri, pin: Option<Arc<Pin>>, secret: &str, name: &str) -> Result<Answer> {
    let client = Client::pinned(&context.http(), pin)?;
    let body = json!({"secret": secret, "name": name}).to_string();
    let url = format!("{}/pair", address::origin(uri));
    let request = Request { content: Content::Json(body.as_bytes()), ..Request::new("POST", &url, Access::None) };
    let answer = client.call(&request)?;
    match answer.status {
        200 => Ok(answer),
        _ => {
            let error = answer.refusal("the device does not pair");
            let hint = "ask the device for a new code: pvcontrol endpoint pair";
            Err(if error.kind == Kind::Refused { error.hint(hint) } else { error })
        }
    }
}

/// The device's address; without a port, the endpoint's.
fn place(text: &str) -> Result<Uri> {
    let bare = text.trim_end_matches('/');
    let bare = bare.strip_prefix("http://").or(bare.strip_prefix("https://")).unwrap_or(bare);
    let bare = bare.split('/').next().unwrap_or(bare);
    let with_port = match bare.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]:12368"),
        Ok(ip) => format!("{ip}:12368"),
        Err(_) if bare.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => bare.to_owned(),
        Err(_) => format!("{bare}:12368"),
    };
    address::parse(&format!("http://{with_port}"))
}

/// The code, from a person or from a program.
fn typed() -> Result<String> {
    if std::io::stdin().is_terminal() {
        eprint!("Code (on the device: pvcontrol endpoint pair): ");
        let _ = std::io::stderr().flush();
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).during(|| "read the code")?;
    Ok(line)
}

impl Code {
    fn read(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage("this is not a pairing code")
                .hint("24 letters and digits, as the device shows them; hyphens do not matter")
        };
        let letters: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        let digits: Option<Vec<u8>> = letters.chars().map(digit).collect();
        let digits = digits.ok_or_else(wrong)?;
        match digits.len() {
            8 => Ok(Self { print: None, secret: letters }),
            24 => {
                let mut print = [0u8; 10];
                for (index, digit) in digits[..16].iter().enumerate() {
                    for bit in 0..5 {
                        let at = index * 5 + bit;
                        print[at / 8] |= (digit >> (4 - bit) & 1) << (7 - at % 8);
                    }
                }
                Ok(Self { print: Some(print), secret: letters[16..].to_owned() })
            }
            _ => Err(wrong()),
        }
    }
}

/// Five bits; letters that are taken for others are the others.
fn digit(letter: char) -> Option<u8> {
    const ALPHABET: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET.find(letter).and_then(|at| u8::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        let read = |text: &str| Code::read(text).map_err(|e| e.kind);
        let code = read("zzzz-zzzz-zzzz-zzz0-ABCD-1234\n").unwrap();
        assert_eq!(code.print, Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe0]));
        assert_eq!(code.secret, "ABCD1234");
        assert_eq!(read("oil0 abcd").unwrap(), Code { print: None, secret: "oil0abcd".into() });
        for wrong in ["", "abc", "uuuu-uuuu", "abcd-abcd-abcd", "\u{e4}bcd-abcd"] {
            assert_eq!(read(wrong), Err(Kind::Usage), "{wrong}");
        }
    }

    #[test]
    fn a_device_is_named_as_elsewhere() {
        for (text, wanted) in [
            ("10.0.0.1", "10.0.0.1:12368"),
            ("http://10.0.0.1:80/cgi-bin", "10.0.0.1:80"),
            ("::1", "[::1]:12368"),
            ("box.local", "box.local:12368"),
        ] {
            assert_eq!(authority(&place(text).unwrap()).as_deref(), Some(wanted));
        }
    }
}
