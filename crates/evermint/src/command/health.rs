//! `evermint health`

use anyhow::Result;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::exit::advised;
use crate::gateways::{Access, Gateways};
use crate::out;

/// Arguments of `health`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Ask about one gRPC service, such as evermint.v1.Bundles; about the whole gateway if not
    /// given.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
}

impl Args {
    /// Asks the first gateway that can be reached.
    ///
    /// # Errors
    /// When none can be reached, or it does not serve.
    pub async fn run(self, access: &Access) -> Result<()> {
        let gateways = Gateways::new(access)?;
        let request = HealthCheckRequest {
            service: self.service,
        };
        let answer = gateways
            .read(async |wire| HealthClient::new(wire).check(request.clone()).await)
            .await?;
        let url = gateways.first();
        match answer.status() {
            ServingStatus::Serving => out::write(&format!("{url} is serving\n")),
            status => Err(advised(
                format!("{url} answers {}", status.as_str_name()),
                "`evermint cluster status` on another gateway shows what this one lacks",
            )),
        }
    }
}
