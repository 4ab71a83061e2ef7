import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/** Asks a node as a JDBC tool does: java Ask.java URL PASSWORD COMPRESS; a line for each answer. */
public class Ask {
    public static void main(String[] given) throws SQLException {
        Properties how = new Properties();
        how.put("user", "analyst");
        how.put("password", given[1]);
        how.put("compress", given[2]);
        try (Connection node = DriverManager.getConnection(given[0], how)) {
            System.out.println("version " + node.getMetaData().getDatabaseProductVersion());
            try (PreparedStatement asked = node.prepareStatement(
                    "SELECT call_id, input_tokens, cost_usd, started_at FROM calls WHERE tenant = ? ORDER BY call_id")) {
                asked.setString(1, "jdbc's own");
                ResultSet rows = asked.executeQuery();
                while (rows.next()) {
                    System.out.println("call " + rows.getString(1) + " " + rows.getLong(2) + " " + rows.getBigDecimal(3));
                }
            }
            try (Statement asked = node.createStatement()) {
                ResultSet rows = asked.executeQuery("SELECT number FROM numbers(300000)");
                long sum = 0;
                while (rows.next()) {
                    sum += rows.getLong(1);
                }
                System.out.println("sum " + sum);
            }
            ResultSet columns = node.getMetaData().getColumns(null, "tidegate", "dead_letters", "%");
            while (columns.next()) {
                System.out.println("column " + columns.getString("COLUMN_NAME"));
            }
            try (Statement asked = node.createStatement()) {
                asked.execute("DROP TABLE calls");
                System.out.println("dropped");
            } catch (SQLException refused) {
                System.out.println("refused " + refused.getMessage());
            }
        }
    }
}
