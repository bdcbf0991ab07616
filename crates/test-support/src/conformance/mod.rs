//! What every binary does alike: help, wrong command lines, wrong files, output.

pub mod arguments;
pub mod files;
pub mod output;

/// Makes a test of every check: `conformance!(BINARY)` with a [`Binary`](crate::binary::Binary).
#[macro_export]
macro_rules! conformance {
    ($binary:expr) => {
        $crate::conformance! { $binary;
            arguments::help_is_complete
            arguments::version_is_one_line
            arguments::wrong_command_lines_say_so_and_change_nothing
            arguments::unknown_options_are_refused_everywhere
            files::what_is_no_image_is_refused_at_once
            files::what_may_not_be_read_or_written_is_refused
            files::little_memory_is_enough
            files::reading_changes_nothing
            files::a_failing_write_is_no_edit
            output::a_reader_that_went_away_is_no_error
            output::output_that_cannot_be_written_is_an_error
            output::json_documents_have_a_schema
            output::no_colour_goes_where_none_is_wanted
            output::terminals_are_safe_from_images
            output::terminals_show_what_pipes_get
        }
    };
    ($binary:expr; $($module:ident::$check:ident)+) => { $(
        #[test]
        fn $check() {
            $crate::conformance::$module::$check(&$binary);
        }
    )+ };
}
