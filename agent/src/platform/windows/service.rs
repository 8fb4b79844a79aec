//! The manager of services: the agent as a service, and its states.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
    ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo,
    ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{Error, service_dispatcher};

use super::{event_log, guarded, stop as requests};
use crate::tasks::Tasks;

/// The service's name.
pub const NAME: &str = "riposte-agent";
/// Time that the manager of services is told to wait for a start or a stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// The system's code for a service that is not installed.
const NO_SUCH_SERVICE: i32 = 1060;
/// Time after which a service that failed is started again.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// What the service does, until the system's thread takes it.
type Work = Box<dyn FnOnce() -> ExitCode + Send>;
static WORK: Mutex<Option<Work>> = Mutex::new(None);
/// Where states are reported; nowhere if the agent is no service.
static STATES: OnceLock<ServiceStatusHandle> = OnceLock::new();

/// The agent is ready: it has read its journal, and its lanes run.
pub fn ready() {
    report(ServiceState::Running, 0);
}

/// The agent stops because it was asked to.
pub fn stopping() {
    report(ServiceState::StopPending, 0);
}

/// The manager of services has no place for a text; the log has it.
pub fn status(text: &str) {
    tracing::debug!(text, "status");
}

/// The manager of services has no watchdog: it starts a service again that ends, which the agent
/// does when a task of it fails.
#[expect(clippy::unused_async, reason = "other systems wait here")]
pub async fn watch(_tasks: &Tasks) {}

fn report(state: ServiceState, exit_code: u32) {
    let Some(states) = STATES.get() else { return };
    let accepts = if state == ServiceState::Running {
        ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN
    } else {
        ServiceControlAccept::empty()
    };
    let is_pending = matches!(state, ServiceState::StartPending | ServiceState::StopPending);
    let told = states.set_service_status(ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: accepts,
        exit_code: if exit_code == 0 { ServiceExitCode::NO_ERROR } else { ServiceExitCode::ServiceSpecific(exit_code) },
        checkpoint: 0,
        wait_hint: if is_pending { PATIENCE } else { Duration::ZERO },
        process_id: None,
    });
    if let Err(error) = told {
        tracing::warn!(%error, "the manager of services could not be told the state");
    }
}

/// Runs `work` as the service, in a thread of the manager of services; returns when it has ended.
///
/// # Errors
/// When this process was not started by the manager of services.
pub fn run(work: impl FnOnce() -> ExitCode + Send + 'static) -> Result<(), String> {
    *WORK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(work));
    service_dispatcher::start(NAME, service_main)
        .map_err(|error| format!("this command is for the manager of services: {}", told(&error)))
}

windows_service::define_windows_service!(service_main, begin);

fn begin(_arguments: Vec<OsString>) {
    let control = |event| match event {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            requests::request();
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    match service_control_handler::register(NAME, control) {
        Ok(states) => drop(STATES.set(states)),
        Err(error) => return tracing::error!("the manager of services cannot be answered: {}", told(&error)),
    }
    report(ServiceState::StartPending, 0);
    let work = WORK.lock().unwrap_or_else(PoisonError::into_inner).take();
    let is_done = work.is_some_and(|work| work() == ExitCode::SUCCESS);
    report(ServiceState::Stopped, u32::from(!is_done));
}

/// Installs this program as the service, with `arguments`. It starts with the host, by the account
/// of the system, and again when it fails. Returns what could not be set up and does not prevent it
/// from running.
///
/// # Errors
/// When another account could replace the program, or the system refuses.
pub fn install(program: &Path, arguments: Vec<OsString>) -> Result<Vec<String>, String> {
    guarded::require_sure(program).map_err(|error| {
        format!("{error}; copy the program to \"C:\\Program Files\\Riposte\" and install it from there")
    })?;
    let manager = open(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE)?;
    let info = ServiceInfo {
        name: NAME.into(),
        display_name: "Riposte agent".into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program.to_owned(),
        launch_arguments: arguments,
        dependencies: vec![],
        account_name: None,
        account_password: None,
    };
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START;
    let service = manager.create_service(&info, access).map_err(|error| told(&error))?;
    let described = service.set_description("Executes signed responses of a Riposte manager, and undoes them on time");
    described.map_err(|error| told(&error))?;
    let restart = ServiceAction { action_type: ServiceActionType::Restart, delay: RESTART_AFTER };
    let actions = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(Duration::from_hours(24)),
        reboot_msg: None,
        command: None,
        actions: Some(vec![restart.clone(), restart.clone(), restart]),
    };
    let mut lacking = Vec::new();
    // An agent that ends with a failure has not crashed for the system; it is to be started again too.
    let restarts =
        service.update_failure_actions(actions).and_then(|()| service.set_failure_actions_on_non_crash_failures(true));
    lacking.extend(restarts.err().map(|error| format!("it is not started again after a failure: {}", told(&error))));
    let events = event_log::install();
    lacking.extend(events.err().map(|error| format!("the log of events shows its texts with a note: {error}")));
    Ok(lacking)
}

/// Starts the installed service.
///
/// # Errors
/// When the system refuses.
pub fn start() -> Result<(), String> {
    let service = opened(ServiceAccess::START)?;
    service.start::<OsString>(&[]).map_err(|error| told(&error))
}

/// Whether the service is installed.
///
/// # Errors
/// When the system does not tell.
pub fn is_installed() -> Result<bool, String> {
    match open(ServiceManagerAccess::CONNECT)?.open_service(NAME, ServiceAccess::QUERY_STATUS) {
        Ok(_) => Ok(true),
        Err(Error::Winapi(error)) if error.raw_os_error() == Some(NO_SUCH_SERVICE) => Ok(false),
        Err(error) => Err(told(&error)),
    }
}

/// Stops the service, and waits until it has stopped.
///
/// # Errors
/// When it is not installed, does not stop, or the system refuses.
pub fn stop() -> Result<(), String> {
    stop_service(&opened(ServiceAccess::QUERY_STATUS | ServiceAccess::STOP)?)
}

/// Stops and removes the service.
///
/// # Errors
/// When it is not installed, does not stop, or the system refuses.
pub fn uninstall() -> Result<(), String> {
    let service = opened(ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE)?;
    stop_service(&service)?;
    service.delete().map_err(|error| told(&error))?;
    if let Err(error) = event_log::uninstall() {
        tracing::warn!(%error, "the source of events stays in the registry");
    }
    Ok(())
}

fn stop_service(service: &Service) -> Result<(), String> {
    let state = || service.query_status().map(|status| status.current_state).map_err(|error| told(&error));
    if state()? == ServiceState::Stopped {
        return Ok(());
    }
    service.stop().map_err(|error| told(&error))?;
    let end = Instant::now() + PATIENCE;
    while state()? != ServiceState::Stopped {
        if Instant::now() > end {
            return Err(format!("the service did not stop within {} s", PATIENCE.as_secs()));
        }
        #[expect(clippy::disallowed_methods, reason = "the manager of services tells a state only when asked")]
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn opened(access: ServiceAccess) -> Result<Service, String> {
    open(ServiceManagerAccess::CONNECT)?.open_service(NAME, access).map_err(|error| told(&error))
}

fn open(access: ServiceManagerAccess) -> Result<ServiceManager, String> {
    ServiceManager::local_computer(None::<&str>, access).map_err(|error| told(&error))
}

/// The system's own error, which the crate has only as a cause.
fn told(error: &Error) -> String {
    match error {
        Error::Winapi(cause) => cause.to_string(),
        other => other.to_string(),
    }
}
